"""Workflows that go on after a failure, and tasks that take failures, through the public API."""

from __future__ import annotations

from collections.abc import Iterator

import effects
import pytest
import ray
from effects import calls

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    FailedOutputError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.offline.describe import describe_graph
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

#: Numbers that :func:`part` refuses.
BAD: set[int] = set()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    BAD.clear()
    with effects.fresh():
        yield


@ray.remote
def part(number):
    calls.append(f"part {number}")
    if number in BAD:
        raise ValueError(f"{number} is bad")
    return number


@ray.remote
def total(*numbers):
    calls.append("total")
    return sum(numbers)


@ray.remote
def notify(*given):
    calls.append("notify")
    return [str(one) if isinstance(one, Exception) else one for one in given]


def parts(count: int):
    return [part.options(**workflow.options(task_id=f"p{n}")).bind(n) for n in range(count)]


def ended(workflows: InProcessWorkflows, workflow_id: str) -> dict[str, str | None]:
    store = WorkflowStore(workflows.store)
    record = StatusReader(store).read(workflow_id).record
    tasks = describe_graph(store, record)["tasks"]
    return {task["task_id"]: task["ended"] or task["checkpoint"] for task in tasks}


def test_a_run_that_goes_on_commits_all_that_it_can_and_one_resume_runs_the_rest():
    BAD.update((2, 5))
    with testing.in_process() as workflows:
        with pytest.raises(WorkflowExecutionError) as caught:
            workflows.run(total.bind(*parts(8)), workflow_id="w", on_failure="finish")
        assert "is bad" in str(caught.value.__cause__)
        assert workflows.get_status("w") == "FAILED"
        assert sorted(calls) == [f"part {n}" for n in range(8)]
        described = workflows.get_metadata("w")["failed_tasks"]
        assert described["total"] == 2
        assert {one["task_id"] for one in described["first"]} == {"p2", "p5"}
        assert ended(workflows, "w") == {
            **{f"p{n}": "committed" for n in range(8)},
            **{"p2": "failed", "p5": "failed", "test_keep_going.total": "not run"},
        }
        reasons = {task.task_id: task.reason for task in workflows.plan(None, "w").tasks}
        assert reasons["p2"] == reasons["p5"] == "it failed"
        assert reasons["test_keep_going.total"] == "it did not run, as a task upstream failed"
        BAD.clear()
        calls.clear()
        assert workflows.resume("w") == sum(range(8))
        assert sorted(calls) == ["part 2", "part 5", "total"]


def test_the_output_of_each_task_that_failed_is_its_own_exception():
    BAD.update((0, 1))
    with testing.in_process() as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(total.bind(*parts(2)), workflow_id="w", on_failure="finish")
        for number in (0, 1):
            with pytest.raises(FailedOutputError) as caught:
                workflows.get_output("w", task_id=f"p{number}")
            assert str(caught.value.__cause__) == f"{number} is bad"


def test_a_resume_goes_on_after_failures_as_the_run_before_did_unless_it_says_otherwise():
    BAD.update(range(4))
    with testing.in_process() as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(total.bind(*parts(4)), workflow_id="w", on_failure="finish")
        with pytest.raises(WorkflowExecutionError):
            workflows.resume("w")
        assert workflows.get_metadata("w")["failed_tasks"]["total"] == 4
        with pytest.raises(WorkflowExecutionError):
            workflows.resume("w", on_failure="stop")
        assert "failed_tasks" not in workflows.get_metadata("w")


def test_a_task_that_takes_failures_runs_after_one_also_where_it_stops_the_workflow():
    BAD.add(1)
    told = notify.options(**workflow.options(task_id="told", when="all_done"))
    with testing.in_process() as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(told.bind(*parts(2)), workflow_id="w", on_failure="stop")
        assert workflows.get_status("w") == "FAILED"
        assert "notify" in calls
        assert workflows.get_output("w", task_id="told")[1] == "1 is bad"
        assert ended(workflows, "w")["told"] == "committed"
        BAD.clear()
        assert workflows.resume("w") == [0, 1]
        calls.clear()
        assert workflows.resume("w") == [0, 1]
        assert calls == []


def test_a_task_for_failures_only_is_skipped_where_none_has_failed():
    only = notify.options(**workflow.options(task_id="only", when="any_failed"))
    with testing.in_process() as workflows:
        assert workflows.run(only.bind(*parts(2)), workflow_id="w") is None
        assert "notify" not in calls
        assert ended(workflows, "w")["only"] == "skipped"
        assert workflows.get_output("w", task_id="only") is None


def test_what_a_task_may_take_is_none_where_that_did_not_run():
    BAD.add(0)
    told = notify.options(**workflow.options(task_id="told", when="all_done"))
    [first] = parts(1)
    graph = told.bind(first, total.bind(first))
    with testing.in_process() as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(graph, workflow_id="w")
        assert workflows.get_output("w", task_id="told") == ["0 is bad", None]


@ray.remote
def told(given):
    calls.append("told")
    return f"told {given}"


@ray.remote
def told_later(given):
    return told.options(**workflow.options(task_id="inner")).bind(given)


@ray.remote
def passed_on(given):
    calls.append("passed on")
    if 9 in BAD:
        raise ValueError("9 is bad")
    return given


@pytest.mark.parametrize("takes", [told, told_later], ids=["value", "continuation"])
def test_what_was_made_of_a_failure_is_made_anew_at_the_resume_after_the_one_that_mended_it(takes):
    """The task behind the one that took the failure is cut off in the resume between."""
    middle = takes.options(**workflow.options(task_id="middle", when="all_done"))
    graph = passed_on.bind(middle.bind(part.bind(1)))
    with testing.in_process() as workflows:
        BAD.add(1)
        with pytest.raises(WorkflowExecutionError):
            workflows.run(graph, workflow_id="w", on_failure="finish")
        BAD.clear()
        BAD.add(9)
        with pytest.raises(WorkflowExecutionError, match="9 is bad"):
            workflows.resume("w")
        BAD.clear()
        calls.clear()
        assert workflows.resume("w") == "told 1"
        assert calls == ["passed on"]


def test_the_output_of_a_skipped_task_is_none_also_where_it_had_one_in_the_run_before():
    graph = told.options(**workflow.options(task_id="only", when="any_failed")).bind(part.bind(1))
    with testing.in_process() as workflows:
        BAD.add(1)
        with pytest.raises(WorkflowExecutionError):
            workflows.run(graph, workflow_id="w")
        BAD.clear()
        assert workflows.resume("w") is None
        output = StatusReader(WorkflowStore(workflows.store)).read("w").record.output
        assert (output.value, output.problem) == (None, "")


def test_a_policy_that_does_not_exist_is_refused():
    with testing.in_process() as workflows:
        with pytest.raises(ValueError, match=r"on_failure must be one of .*'go on'"):
            workflows.run(total.bind(), workflow_id="w", on_failure="go on")
        with pytest.raises(ValueError, match="on_failure must be one of"):
            workflows.resume("w", on_failure="go on")
    with pytest.raises(ValueError, match=r"when must be one of .*'always'"):
        workflow.options(when="always")
