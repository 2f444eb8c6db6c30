"""Maps on a cluster: results in the storage and in workers, items that share calls, and lost workers."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray
from witness import Crash, Gate

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError

LARGE = 40_000  # bytes: a value of an object of its own


@workflow.task
def large(number: int) -> bytes:
    return bytes([number]) * LARGE


@workflow.task
def sizes(values: Any) -> list[int]:
    return [len(value) for value in values]


def test_a_task_reads_large_values_of_a_map_from_the_storage(manager, new_id):
    result = workflow.run(large.map({"a": 1, "b": 2}), workflow_id=new_id)
    assert isinstance(result, workflow.MapResult)
    assert [value[0] for value in result] == [1, 2]
    assert workflow.run(sizes(large.map(range(3)))) == [LARGE] * 3


def test_small_items_of_a_map_come_back_in_order(manager):
    @workflow.task
    def square(x: int) -> int:
        return x * x

    assert list(workflow.run(square.map(range(1_500)))) == [x * x for x in range(1_500)]


def test_a_map_of_one_item_may_run_in_one_worker(manager):
    for _ in range(20):
        assert workflow.run(sizes(large.map([1]))) == [LARGE]


def test_a_task_of_ray_takes_the_result_inside_a_list(manager):
    @ray.remote
    def firsts(maps: list[Any]) -> list[int]:
        return [ray.get(one)[0][0] for one in maps]

    assert workflow.run(firsts.bind([large.map([7]), large.map([8, 9])])) == [7, 8]


def test_the_result_may_go_to_a_plain_ray_task(manager):
    @ray.remote
    def count(values: Any) -> list[int]:
        return [len(values), values[1][0]]

    @workflow.task
    def asks(values: Any) -> list[int]:
        found: list[int] = ray.get(count.remote(values))
        return found

    assert workflow.run(asks(large.map([4, 5]))) == [2, 5]


def test_items_of_a_batch_share_a_ray_task(manager):
    @workflow.task
    def in_task(number: int) -> str:
        return str(ray.get_runtime_context().get_task_id())

    alone = workflow.run(in_task.with_options(num_cpus=0.5).map(range(8)))
    assert len(set(alone)) == 8
    shared = workflow.run(in_task.with_options(num_cpus=0.5).map(range(64), batch_size=8))
    assert 8 <= len(set(shared)) <= 32


def test_items_of_a_lost_batch_run_again_each_by_itself(manager, crash: Crash):
    crash.arm()

    @workflow.task
    def number(x: int) -> int:
        if x == 3:
            crash.pass_by()
        return x

    assert workflow.run(number.map(range(6), batch_size=6)) == list(range(6))
    assert crash.path.read_text() == ""  # it was met


def test_an_item_that_kills_its_worker_counts_as_failed(manager):
    @workflow.task(max_retries=0)
    def dies(x: int) -> int:
        if x == 1:
            os._exit(1)
        return x

    result = workflow.run(dies.map([0, 1, 2], max_failed=1))
    assert list(result) == [0, 2]
    assert list(result.failed) == [1]


def test_a_map_with_too_many_failures_stops_the_items_that_run(manager, gate: Gate):
    @workflow.task
    def waits_or_fails(x: int) -> int:
        if x:
            raise ValueError(f"{x} is broken")
        gate.wait()
        return x

    with pytest.raises(WorkflowExecutionError, match="2 of the 3 items"):
        workflow.run(waits_or_fails.map([0, 1, 2], max_failed=1))
