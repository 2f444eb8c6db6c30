"""What Ray says of a lost task, and what follows on clusters that lose nodes and memory for real."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray import exceptions

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.runtime.service.loss_causes import cause_of, memory_text


class PreemptedActorError(exceptions.RayActorError):
    """As Ray makes it of an actor whose node was drained because it is preempted."""

    def __init__(self) -> None:
        super().__init__(preempted=True)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (exceptions.OutOfMemoryError("2 workers were killed"), Cause.OUT_OF_MEMORY),
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (exceptions.NodeDiedError("the node is dead"), Cause.NODE_LOST),
        (exceptions.LocalRayletDiedError(), Cause.NODE_LOST),
        (PreemptedActorError(), Cause.NODE_LOST),
        (exceptions.WorkerCrashedError(), Cause.CRASHED),
        (exceptions.ActorDiedError(), Cause.CRASHED),
        (exceptions.ActorUnavailableError("gone", None), Cause.SYSTEM),
        (exceptions.RuntimeEnvSetupError("no such package"), Cause.SYSTEM),
        (exceptions.ObjectLostError("00", None, ""), Cause.SYSTEM),
        (ValueError("of our own"), Cause.SYSTEM),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_ray_tells_the_cause(error: BaseException, cause: Cause):
    assert cause_of(error) is cause


def wait_for_lines(path: Path, number: int) -> None:
    end = time.monotonic() + 120
    while not path.exists() or len(path.read_text().splitlines()) < number:
        assert time.monotonic() < end, f"{path.name} has not {number} lines"
        time.sleep(0.02)


@pytest.fixture
def no_ray() -> Iterator[None]:
    yield
    ray.shutdown()


def drain(node_id: str) -> None:
    """Ray knows from now on that the node is preempted; who preempts it ends it later."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    deadline_ms = int((time.time() + 3600) * 1000)
    is_accepted, reply = gcs.drain_node(node_id, reason, "preempted", deadline_ms)
    assert is_accepted, reply


@pytest.mark.timeout(400)
def test_killed_and_drained_nodes_are_paid_from_the_budget_of_nodes(tmp_path: Path, no_ray: None):
    from ray.cluster_utils import Cluster

    begun, gate = tmp_path / "begun", tmp_path / "gate"
    options = workflow.options(task_id="fit", max_crashes=0, max_oom_retries=0)

    @ray.remote(resources={"spot": 1}, **options)
    def fit() -> str:
        with begun.open("a") as file:
            file.write("begun\n")
        while not gate.exists():
            time.sleep(0.05)
        return "model"

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False)
        workflow.init(storage=str(tmp_path / "storage"))  # the manager is on this node for good
        spot = cluster.add_node(num_cpus=1, resources={"spot": 1})
        output = workflow.run_async(fit.bind(), workflow_id="w")
        wait_for_lines(begun, 1)
        cluster.remove_node(spot, allow_graceful=False)
        spot = cluster.add_node(num_cpus=1, resources={"spot": 1})
        wait_for_lines(begun, 2)
        drain(spot.node_id)
        cluster.remove_node(spot, allow_graceful=True)
        cluster.add_node(num_cpus=1, resources={"spot": 1})
        wait_for_lines(begun, 3)
        gate.touch()
        assert ray.get(output) == "model"
        assert workflow.get_metadata("w")["failed_attempts"] == {"node_lost": 2}
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.timeout(400)
def test_a_task_that_leaves_a_drained_node_goes_on_elsewhere_and_the_budget_of_nodes_pays(
    tmp_path: Path, no_ray: None
):
    from ray.cluster_utils import Cluster

    begun = tmp_path / "begun"
    options = workflow.options(task_id="fit", max_crashes=0, stop_grace_s=60)

    @ray.remote(resources={"spot": 1}, **options)
    def fit() -> tuple[str, str]:
        node_id = ray.get_runtime_context().get_node_id()
        context = workflow.get_context()
        if context.saved is not None:
            return context.saved, node_id
        with begun.open("a") as file:
            file.write("begun\n")
        while not context.should_stop:
            time.sleep(0.05)
        context.save(node_id)
        raise InterruptedError("to be stopped")

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False)
        workflow.init(storage=str(tmp_path / "storage"))  # the manager is on this node for good
        spot = cluster.add_node(num_cpus=1, resources={"spot": 1})
        output = workflow.run_async(fit.bind(), workflow_id="w")
        wait_for_lines(begun, 1)
        other = cluster.add_node(num_cpus=1, resources={"spot": 1})
        drain(spot.node_id)
        assert ray.get(output) == (spot.node_id, other.node_id)
        assert workflow.get_metadata("w")["failed_attempts"] == {"node_lost": 1}
    finally:
        ray.shutdown()
        cluster.shutdown()


def threshold_above_now(free_bytes: int) -> str:
    """The share of the machine's memory that is used when so much more is."""
    memory = psutil.virtual_memory()
    return f"{(memory.total - memory.available + free_bytes) / memory.total:.4f}"


MIB = 2**20


@pytest.mark.timeout(300)
def test_a_task_that_ray_kills_for_memory_gets_more_from_the_budget_of_memory(
    tmp_path: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
):
    from ray.cluster_utils import Cluster

    begun = tmp_path / "begun"
    # Other programs of the machine may take the memory, too: twice is not enough then.
    options = workflow.options(
        task_id="fit", max_crashes=0, max_preemptions=0, max_oom_retries=9, escalate={"memory": 2.0}
    )

    @ray.remote(memory=100 * MIB, resources={"small": 1}, **options)
    def fit() -> float:
        is_first = not begun.exists()
        with begun.open("a") as file:
            file.write("begun\n")
        eaten: list[Any] = []
        while is_first and len(eaten) < 80:
            eaten.append(os.urandom(MIB) * 64)
            time.sleep(0.05)
        return float(ray.get_runtime_context().get_assigned_resources()["memory"])

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False)
        workflow.init(storage=str(tmp_path / "storage"))
        # Only this node looks at the memory: of one that had the manager, Ray would kill that first.
        monkeypatch.setenv("RAY_memory_usage_threshold", threshold_above_now(3 * 1024 * MIB))
        monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "1000")
        cluster.add_node(num_cpus=1, resources={"small": 1}, memory=1024 * MIB)
        assert workflow.run(fit.bind(), workflow_id="w") >= 200 * MIB
        assert set(workflow.get_metadata("w")["failed_attempts"]) == {"out_of_memory"}
    finally:
        ray.shutdown()
        cluster.shutdown()


#: As Ray 2.60 words it.
KILLED = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, "
    "ID: 2082b5) was 4.91GB used / 23.54GB limit (0.208615)\nOOM kill reason: …\nSelected to kill: "
    "(Task: job ID=01000000, lease ID=00, task name=fit, required resources={CPU: 1}, pid=22656, "
    "actual memory used=0.06GB, worker ID=99)\n"
)


def test_what_a_task_and_its_node_used_is_told():
    error = exceptions.OutOfMemoryError(KILLED)
    said = "Killed for memory: the task used 0.06GB, its node 4.91GB of 23.54GB.\n"
    assert memory_text(error, "fit") == said
    # Of a worker that was killed beside others of the same name, or not named, the node's use only.
    assert memory_text(error, "other") == "Killed for memory: its node 4.91GB of 23.54GB.\n"
    twice = exceptions.OutOfMemoryError(KILLED * 2)
    assert memory_text(twice, "fit") == "Killed for memory: its node 4.91GB of 23.54GB.\n"
    assert memory_text(exceptions.OutOfMemoryError("in other words"), "fit") == ""
    assert memory_text(exceptions.WorkerCrashedError(), "fit") == ""
