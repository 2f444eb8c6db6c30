"""What a workflow is for, written with ``@workflow.task`` alone; :mod:`test_without_ray_dag` runs this, too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import effects
import pytest
import ray
from effects import calls

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskTimeoutError
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows


@workflow.task
def add(a: int, b: int = 0) -> int:
    calls.append("add")
    return a + b


@workflow.task
def total(values: list[int]) -> int:
    return sum(values)


@workflow.task
def fail_until(number: int, value: Any = None) -> int:
    calls.append("fail")
    if len(calls) < number:
        raise OSError("not yet")
    return len(calls)


@workflow.task
def wait_at_gate(value: Any) -> Any:
    calls.append("waits")
    effects.gate.wait()
    return value


@workflow.task
def countdown(number: int) -> Any:
    calls.append(f"{number}")
    return workflow.continuation(countdown(number - 1)) if number else "lift-off"


@workflow.task
def same(value: Any) -> Any:
    return value


def test_a_workflow_runs_once(workflows: InProcessWorkflows):
    graph = total([add(1), add(2), add(add(3), b=4)])
    assert workflows.run(graph, workflow_id="w") == 10
    assert workflows.run(graph, workflow_id="w") == 10
    assert len(calls) == 4
    assert workflows.get_status("w") == "SUCCESSFUL"
    assert workflows.get_output("w", task_id="add_3") == 7


def test_a_resume_runs_what_has_no_checkpoint(workflows: InProcessWorkflows):
    graph = add(fail_until(3, add(1)), 10)
    with pytest.raises(workflow.WorkflowExecutionError) as raised:
        workflows.run(graph, workflow_id="w")
    assert raised.value.task_id == "fail_until"
    assert workflows.get_status("w") == "FAILED"
    calls.append("repaired")
    assert workflows.resume("w") == 14
    assert calls == ["add", "fail", "repaired", "fail", "add"]


def test_only_what_takes_a_changed_input_runs_again(workflows: InProcessWorkflows):
    def graph(last: int) -> workflow.Node[int]:
        return total([same(1), add(last)])

    assert workflows.run(graph(1), workflow_id="w") == 2
    plan = workflow.plan(graph(2), "w")
    assert [(task.task_id, task.action) for task in plan.tasks] == [
        ("same", "reuse"),
        ("add", "run"),
        ("total", "check"),
    ]
    assert workflows.run(graph(2), workflow_id="w") == 3
    assert calls == ["add", "add"]


def test_a_crash_loses_nothing_that_was_committed(fresh: None):
    store = testing.MemoryStore()
    with testing.in_process(store) as workflows:
        running = workflows.run_async(wait_at_gate(add(1)), workflow_id="w")
        while "waits" not in calls:
            ray.wait([running], timeout=0.01)
        workflows.crash()
    effects.gate.set()
    with testing.in_process(store) as workflows:
        assert workflows.resume("w") == 1
    assert calls.count("add") == 1


def test_a_continuation_goes_on_in_the_task_that_returned_it(workflows: InProcessWorkflows):
    assert workflows.run(countdown(3), workflow_id="w") == "lift-off"
    assert calls == ["3", "2", "1", "0"]
    assert workflows.get_output("w") == "lift-off"


def test_nodes_stand_anywhere_in_arguments(workflows: InProcessWorkflows):
    assert workflows.run(same({"graph": [add(1), {"b": add(2)}]})) == {"graph": [1, {"b": 2}]}


def test_a_sleep_and_an_event_are_waited_for(workflows: InProcessWorkflows):
    class Ready(workflow.EventListener):
        async def poll_for_event(self, name: str) -> str:
            effects.gate.wait()
            return f"{name} is ready"

        async def event_checkpointed(self, event: Any) -> None:
            effects.calls.append(event)

    running = workflows.run_async(same([workflow.wait_for_event(Ready, "data")]))
    effects.gate.set()
    assert ray.get(running) == ["data is ready"]
    assert calls == ["data is ready"]
    assert workflows.run(same([workflow.sleep(timedelta(milliseconds=10)), 1])) == [None, 1]


def test_options_count(workflows: InProcessWorkflows):
    named = add.with_options(name="first", metadata={"k": 1}, checkpoint=False, num_cpus=2)
    caught = fail_until.with_options(catch_exceptions=True)
    late = wait_at_gate.with_options(timeout_s=0.01)
    value, error = workflows.run(caught(9, named(1)), workflow_id="w")
    assert (value, repr(error)) == (None, "OSError('not yet')")
    assert workflows.get_metadata("w", "first")["user_metadata"] == {"k": 1}
    with pytest.raises(workflow.WorkflowExecutionError) as raised:
        workflows.run(late(1))
    assert isinstance(raised.value.__cause__, WorkflowTaskTimeoutError)


def test_exceptions_are_retried_as_asked(workflows: InProcessWorkflows):
    retry = workflow.Retry(attempts=3, on=OSError, wait_initial=0)
    assert workflows.run(fail_until.with_options(retry=retry)(3)) == 3
    calls.clear()
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(fail_until.with_options(retry=retry)(4))
    assert len(calls) == 3
    calls.clear()
    assert workflows.run(fail_until.with_options(max_retries=2, retry_exceptions=[OSError])(3)) == 3


def test_what_does_not_depend_on_a_failure_still_runs(workflows: InProcessWorkflows):
    after = same.with_options(name="after", when="all_done")
    graph = same([after([fail_until(9), add(1)])])
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(graph, workflow_id="w", on_failure="finish")
    failed, one = workflows.get_output("w", task_id="after")
    assert (repr(failed), one) == ("OSError('not yet')", 1)


def test_outputs_and_parts_are_results_of_their_own(workflows: InProcessWorkflows):
    low, high = same.outputs("low", "high")({"low": [1, 2], "high": [3]})
    assert workflows.run(total([low[1], high[0]]), workflow_id="w") == 5
    assert workflows.get_output("w", task_id="same.high") == [3]


def test_a_suspended_workflow_is_resumed_and_a_canceled_one_is_not(workflows: InProcessWorkflows):
    for workflow_id in ("suspended", "canceled"):
        calls.clear()
        running = workflows.run_async(wait_at_gate(add(1)), workflow_id=workflow_id)
        while "waits" not in calls:
            ray.wait([running], timeout=0.01)
        if workflow_id == "suspended":
            workflows.suspend(workflow_id)
        else:
            workflows.cancel(workflow_id)
    effects.gate.set()
    assert workflows.resume("suspended") == 1
    with pytest.raises(workflow.WorkflowNotResumableError):
        workflows.resume("canceled")
