"""A workflow whose task waits for another workflow lends its slot: no depth of nesting waits for ever."""

from __future__ import annotations

import queue
import time

import effects
import pytest
import ray
from waiting import wait_until

from airflow_provider_rayworkflow import workflow


@ray.remote
def leaf():
    effects.calls.append("leaf")
    return 0


def ask(how: str, dag, name: str):
    match how:
        case "run":
            return workflow.run(dag, workflow_id=name)
        case "run_async":
            return ray.get(workflow.run_async(dag, workflow_id=name))
        case "get_output":
            workflow.run_async(dag, workflow_id=name)
            return workflow.get_output(name)
        case "get_output_async":
            workflow.run_async(dag, workflow_id=name)
            return ray.get(workflow.get_output_async(name))
        case "resume":
            return workflow.resume(name)


@ray.remote
def nest(depth: int, how: str, name: str):
    if depth == 0:
        return 0
    return 1 + ask(how, nest.bind(depth - 1, how, f"{name}-"), f"{name}-")


@pytest.mark.parametrize("how", ["run", "run_async", "get_output", "get_output_async"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_nested_workflows_end_with_each_limit(workflows, limit: int, depth: int, how: str):
    workflow.init(max_running_workflows=limit)
    outer = [
        workflow.run_async(nest.bind(depth, how, f"w{i}"), workflow_id=f"w{i}") for i in range(3)
    ]
    assert ray.get(outer) == [depth] * 3


@pytest.mark.parametrize("depth", [1, 3])
def test_a_workflow_that_a_task_waits_for_needs_no_place_in_the_queue(workflows, depth: int):
    workflow.init(max_running_workflows=1, max_pending_workflows=0)
    assert workflow.run(nest.bind(depth, "run", "w"), workflow_id="w") == depth


def test_a_resume_that_a_task_waits_for_needs_no_place_in_the_queue(workflows):
    @ray.remote
    def fails_first():
        effects.note("inner")
        return 0

    effects.broken.add("inner")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fails_first.bind(), workflow_id="w-")
    effects.broken.clear()
    workflow.init(max_running_workflows=1, max_pending_workflows=0)
    assert workflow.run(nest.bind(1, "resume", "w"), workflow_id="w") == 1


def test_a_workflow_that_a_task_starts_without_waiting_counts_as_any_other(workflows):
    @ray.remote
    def start_and_leave():
        with pytest.raises(queue.Full):
            workflow.run_async(leaf.bind())
        return "refused"

    workflow.init(max_running_workflows=1, max_pending_workflows=0)
    assert workflow.run(start_and_leave.bind()) == "refused"


def test_several_tasks_of_one_workflow_wait_at_once(workflows):
    @ray.remote
    def add(*numbers):
        return sum(numbers)

    workflow.init(max_running_workflows=1)
    nested = [nest.bind(2, "run", f"w{i}") for i in range(4)]
    assert workflow.run(add.bind(*nested), workflow_id="w") == 8


def test_a_failed_child_gives_its_parent_the_slot_back(workflows):
    @ray.remote
    def bad():
        raise ValueError("bad")

    @ray.remote
    def parent():
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.run(bad.bind())
        return "went on"

    workflow.init(max_running_workflows=1)
    assert [workflow.run(parent.bind()) for _ in range(3)] == ["went on"] * 3


def test_a_parent_that_is_canceled_while_it_waits_frees_nothing_twice(workflows):
    @ray.remote
    def wait():
        effects.calls.append("runs")
        effects.gate.wait()

    @ray.remote
    def parent():
        return workflow.run(wait.bind(), workflow_id="child")

    workflow.init(max_running_workflows=1)
    workflow.run_async(parent.bind(), workflow_id="parent")
    wait_until(lambda: effects.calls == ["runs"])
    workflow.cancel("parent")
    workflow.run_async(leaf.bind(), workflow_id="other")
    assert workflows.get_status("other") is workflow.PENDING  # the child has the only slot
    effects.gate.set()
    assert workflow.get_output("other") == 0
    workflow.run_async(leaf.bind(), workflow_id="last")
    assert workflow.get_output("last") == 0


def test_no_more_run_than_the_limit_while_parents_go_on(workflows):
    @ray.remote
    def child():
        return 1

    @ray.remote
    def parent(number: int):
        workflow.run(child.bind())
        effects.calls.append(1)
        busy = sum(effects.calls)  # parents that go on at the same time
        time.sleep(0.05)
        effects.calls.append(-1)
        return busy

    workflow.init(max_running_workflows=2)
    parents = [workflow.run_async(parent.bind(i)) for i in range(8)]
    assert max(ray.get(parents)) <= 2
