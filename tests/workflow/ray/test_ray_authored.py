"""Tasks of ``@workflow.task`` on a real Ray."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import ray

from airflow_provider_rayworkflow import workflow


@workflow.task
def square(x: int) -> int:
    return x * x


@workflow.task
async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@dataclass
class Pair:
    left: Any
    right: Any


@workflow.task
def pair(left: Any, right: Any) -> Pair:
    return Pair(left, right)


@workflow.task(num_cpus=0.5)
def total(values: Any, more: Pair) -> int:
    return sum(values["all"]) + more.left + more.right


@workflow.task
def failing() -> None:
    raise ValueError("not today")


@ray.remote
def of_ray(values):
    return sum(ray.get(values))


def graph():
    """1 + 4 + (10 of both styles) + 3 + 9."""
    made = pair(square(1), {"rows": [1, 2, 3]})
    both = of_ray.bind([square(3), ray.put(1)])
    return total({"all": [made.left, square(2), both]}, more=Pair(made.right["rows"][2], later(8)))


def test_nodes_of_both_styles_make_one_workflow(manager, new_id):
    assert workflow.run(graph(), workflow_id=new_id) == 27
    found = {name: workflow.get_output(new_id, task_id=name) for name in ("later", "square_2")}
    assert found == {"later": 9, "square_2": 9}
    assert workflow.get_metadata(new_id, "total")["task_options"]["ray_options"] == {
        "num_cpus": 0.5
    }


def test_outside_of_a_workflow_a_continuation_runs_as_plain_ray_tasks(manager):
    assert workflow.continuation(graph()) == 27
    assert workflow.continuation(pair(1, later(1)).right) == 2


@workflow.task
def countdown(n: int) -> Any:
    return "done" if n == 0 else workflow.continuation(countdown(n - 1))


def test_a_task_may_return_a_continuation(manager, new_id):
    assert workflow.run(countdown(3), workflow_id=new_id) == "done"
    assert workflow.get_output(new_id, task_id="countdown_3") == "done"


def test_events_and_sleeps_are_nodes_like_others(manager, new_id):
    @workflow.task
    def after(slept: None, x: int) -> int:
        return x

    assert workflow.run(after(workflow.sleep(0.1), square(2)), workflow_id=new_id) == 4


def test_errors_and_logs_name_a_task_by_its_function(manager, new_id):
    with pytest.raises(
        workflow.WorkflowExecutionError, match=r"Task\[id=failing\] failed"
    ) as failed:
        workflow.run(pair(failing(), 1), workflow_id=new_id)
    assert failed.value.task_id == "failing"
