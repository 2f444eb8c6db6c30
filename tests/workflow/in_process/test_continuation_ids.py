"""Tasks of continuations: each has an id of its own, whatever has failed and however the graph has changed since."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from effects import broken, calls, note

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.timeout(60)]


@workflow.task
def fragile(value: Any) -> Any:
    note(value)
    return value


@workflow.task
def source(value: Any, version: int = 1) -> Any:
    return value


@workflow.task
def total(values: Any) -> int:
    return sum(values)


@workflow.task
def mapped(value: int) -> Any:
    return total(fragile.map([value]))


@workflow.task
def continued(value: Any) -> Any:
    return fragile(value)


@workflow.task
def listed(values: Any) -> list[Any]:
    return list(values)


@workflow.task
def both(*values: Any) -> list[Any]:
    note("both")
    return list(values)


def ids(workflows: InProcessWorkflows) -> list[str]:
    return [one.task_id for one in workflows.plan(None, "w").tasks]


def check_all_reused(workflows: InProcessWorkflows, node: Any) -> None:
    found = workflows.plan(node, "w").tasks
    assert {one.action for one in found if one.action != "drop"} == {"reuse"}
    assert max(Counter(one.task_id for one in found).values()) == 1


def test_items_that_failed_and_others_that_did_not_get_ids_of_their_own(
    workflows: InProcessWorkflows,
):
    broken.update([10, 20])
    node = listed(mapped.map({"a": 10, "b": 20, "c": 30}, max_failed=2))
    assert workflows.run(node, workflow_id="w") == [30]
    broken.clear()
    node = listed(mapped.map({"c": 31, "a": 11, "b": 21}, max_concurrency=1))
    assert workflows.run(node, workflow_id="w") == [31, 11, 21]
    check_all_reused(workflows, node)
    node = listed(mapped.map({"c": 31, "a": 11, "b": 21, "d": 41}))
    assert workflows.run(node, workflow_id="w") == [31, 11, 21, 41]


def test_a_new_continuation_takes_no_id_of_one_that_is_used_later(workflows: InProcessWorkflows):
    broken.update(["first", "second"])
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(
            both(continued(source(source(source("first")))), continued(source("second"))),
            workflow_id="w",
            on_failure="finish",
        )
    broken.clear()
    # The first one begins at once now, and the second one waits for its source, which has changed.
    node = both(continued("other"), continued(source("second", version=2)))
    assert workflows.run(node, workflow_id="w") == ["other", "second"]
    check_all_reused(workflows, node)


def test_a_graph_may_get_a_task_of_the_name_of_one_in_a_continuation(
    workflows: InProcessWorkflows,
):
    broken.add("both")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(both(continued("a")), workflow_id="w")
    broken.clear()
    node = both(continued("a"), fragile("b"))
    plan = workflows.plan(node, "w")
    assert {one.task_id: one.action for one in plan.tasks} == dict.fromkeys(
        ["continued", "fragile", "both"], "run"
    )
    assert workflows.run(node, workflow_id="w") == ["a", "b"]
    check_all_reused(workflows, node)
    assert workflows.resume("w", from_task="fragile_1") == ["a", "b"]
    assert calls == ["a", "both", "b", "a", "both", "a", "both"]


def test_a_restart_finds_its_task_in_a_graph_that_has_an_id_of_a_continuation(
    workflows: InProcessWorkflows,
):
    workflows.run(both(continued("a")), workflow_id="w")
    node = both(continued("a"), fragile("b"))
    assert workflows.run(node, workflow_id="w", from_task="continued") == ["a", "b"]
    assert sorted(ids(workflows)) == ["both", "continued", "fragile", "fragile_1"]
