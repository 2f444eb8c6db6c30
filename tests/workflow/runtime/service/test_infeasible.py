"""Tasks that no node of the cluster can run."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.runtime import private_ray
from airflow_provider_rayworkflow.workflow.runtime.service.infeasible import (
    INFEASIBLE_VARIABLE,
    ClusterSize,
    InfeasibleTasks,
    infeasible_after_s,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, TaskRun

CPUS = [{"CPU": 4.0, "memory": 100.0}]


def errand(task_id: str, options: dict[str, Any] | None = None, **fields: Any) -> Errand:
    run = TaskRun(
        workflow_id="w",
        epoch=1,
        task_id=task_id,
        attempt=1,
        function=b"",
        arguments=b"",
        ray_options=pickle.dumps(options) if options else b"",
        inputs=(),
        checkpoint=True,
        wants_json=False,
        **fields,
    )
    return Errand(run)


class World:
    """A cluster that says at each look what it has, and then the last of that again."""

    def __init__(self, errands: list[Errand], *sizes: ClusterSize | Exception) -> None:
        self.errands = errands
        self.sizes = list(sizes)
        self.looks = 0
        self.failed: dict[str, TaskFailure] = {}
        self.tasks = InfeasibleTasks(
            lambda: list(self.errands), self.fail, after_s=0.002, ask=self.ask
        )

    def ask(self) -> ClusterSize:
        self.looks += 1
        size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        if isinstance(size, Exception):
            raise size
        return size

    def fail(self, errand: Errand, failure: TaskFailure) -> None:
        self.failed[errand.run.task_id] = failure
        self.errands.remove(errand)

    async def after_looks(self, number: int) -> World:
        self.tasks.watch()
        async with asyncio.timeout(30):
            while self.looks < number and self.errands:
                await asyncio.sleep(0.001)
        return self


def look(errands: list[Errand], *sizes: ClusterSize | Exception) -> World:
    async def main() -> World:
        return await World(errands, *sizes).after_looks(6)

    return asyncio.run(main())


def test_what_fits_no_node_fails_and_what_only_waits_does_not():
    world = look(
        [errand("fits", {"num_cpus": 4}), errand("large", {"num_cpus": 5}), errand("plain")],
        ClusterSize(CPUS, may_grow=False),
    )
    assert set(world.failed) == {"large"}
    assert "asks for CPU=5" in world.failed["large"].message


def test_what_grew_beyond_the_largest_node_fails():
    world = look([errand("grown", asks=(("memory", 200),))], ClusterSize(CPUS, may_grow=False))
    assert set(world.failed) == {"grown"}


def test_events_ask_for_nothing():
    world = look(
        [errand("waits", {"num_cpus": 50}, is_event=True)], ClusterSize(CPUS, may_grow=False)
    )
    assert world.failed == {}


def test_an_autoscaler_may_bring_a_larger_node():
    world = look([errand("large", {"num_cpus": 5})], ClusterSize(CPUS, may_grow=True))
    assert world.failed == {}


def test_a_node_that_is_gone_at_one_look_only_fails_nothing():
    there = ClusterSize(CPUS, may_grow=False)
    gone = ClusterSize([], may_grow=False)
    world = look([errand("runs")], there, gone, there, gone, there)
    assert world.failed == {}


def test_a_task_waits_for_another_node_of_a_size_that_was_there():
    spot = {"GPU": 1.0, "CPU": 4.0, "node:192.0.2.2": 1.0}
    world = look(
        [errand("fit", {"num_gpus": 1}), errand("large", {"num_gpus": 2})],
        ClusterSize([*CPUS, spot], may_grow=False),
        ClusterSize(CPUS, may_grow=False),
    )
    assert set(world.failed) == {"large"}


def test_a_look_that_fails_fails_nothing_and_is_repeated():
    world = look([errand("large", {"num_cpus": 5})], OSError("no answer"), ClusterSize(CPUS, False))
    assert set(world.failed) == {"large"}


async def test_nothing_is_asked_while_nothing_is_under_way():
    world = World([], ClusterSize(CPUS, may_grow=False))
    world.tasks.watch()
    while world.tasks.is_looking:
        await asyncio.sleep(0.001)
    assert world.looks == 0


def test_an_operator_sets_the_time():
    assert infeasible_after_s({}) == 60
    assert infeasible_after_s({INFEASIBLE_VARIABLE: ""}) == 60
    assert infeasible_after_s({INFEASIBLE_VARIABLE: "0"}) == 0
    assert infeasible_after_s({INFEASIBLE_VARIABLE: "600"}) == 600


@pytest.mark.parametrize("text", ["never", "-1", "1e3", "nan"])
def test_a_time_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=f"{INFEASIBLE_VARIABLE} is '{text}'. Give a number"):
        infeasible_after_s({INFEASIBLE_VARIABLE: text})


def report(**nodes: Any) -> bytes:
    found = {"active_nodes": None, "idle_nodes": None, "pending_nodes": [], "pending_launches": {}}
    return json.dumps({"autoscaler_report": found | nodes}).encode()


def test_an_autoscaler_has_types_of_nodes():
    watched = f"node_{'0a' * 28}"
    assert not private_ray.scales(report(active_nodes={watched: 1}))
    assert not private_ray.scales(report(idle_nodes={watched: 1}))
    assert private_ray.scales(report(active_nodes={"ray.head.default": 1}))
    assert private_ray.scales(report(idle_nodes={watched: 1, "headgroup": 1}))
    assert private_ray.scales(report(active_nodes={watched: 1}, pending_launches={"worker": 2}))
    assert private_ray.scales(report())  # it has not looked yet


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(INFEASIBLE_VARIABLE, "4")
    ray.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.mark.timeout(200)
def test_on_a_cluster_an_infeasible_task_fails_and_one_that_waits_for_a_cpu_does_not(
    local_ray: None, tmp_path: Path
):
    gate = tmp_path / "gate"

    @ray.remote
    def wait(number: int) -> int:
        end = time.monotonic() + 120
        while not gate.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return number

    @ray.remote(memory=2**50, **workflow.options(task_id="large"))
    def large() -> None:
        return None

    workflow.init(storage=str(tmp_path / "storage"))
    beside = [workflow.run_async(wait.options(num_cpus=1).bind(n)) for n in (1, 2)]
    with pytest.raises(workflow.WorkflowExecutionError, match="largest node has"):
        workflow.run(large.bind(), workflow_id="w")
    assert workflow.get_status("w") is workflow.RESUMABLE
    assert workflow.get_metadata("w")["failure"]["type"] == "InfeasibleTask"
    gate.touch()
    assert ray.get(beside) == [1, 2]
