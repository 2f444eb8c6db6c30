"""Workflows of one manager share a limit: their tasks never overlap, and those that wait hold no CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import ray
from witness import Gate, Ledger, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

one = workflow.limit("one at a time", max_concurrency=1)
often = workflow.limit("often", max_concurrency=1, rate="1000/second")


def alone(folder: Path, gate: Gate, name: str) -> str:
    """Fails where another call of it runs."""
    mark = folder / "alone"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    Ledger(folder / "ledger").write(name)
    gate.wait()
    print(name)
    mark.unlink()
    return name


@workflow.task(limits=[one])
def called(folder: Path, gate: Gate, name: str) -> str:
    return alone(folder, gate, name)


@workflow.options(limits=[one])
@ray.remote
def bound(folder, gate, name):
    return alone(folder, gate, name)


@workflow.task(limits=[often])
def short(folder: Path, gate: Gate, name: str) -> str:
    return alone(folder, gate, name)


slowly = workflow.limit("slowly", rate="3/2s")


@workflow.task(limits=[slowly])
def when() -> float:
    return time.monotonic()  # one clock for all processes of a machine


@ray.remote(num_cpus=4)
def take_all_cpus(gate):
    gate.wait()


@workflow.task
def together(names: list[str]) -> list[str]:
    return names


@ray.remote
def answer():
    return 42


@pytest.mark.usefixtures("manager")
def test_tasks_of_two_workflows_under_a_limit_of_one_never_overlap(
    tmp_path, gate, new_id, shared_root
):
    store = WorkflowStore(open_store(str(shared_root)))
    first = together([called(tmp_path, gate, name) for name in "abc"])
    second = together([bound.bind(tmp_path, gate, name) for name in "xyz"])
    refs = [workflow.run_async(first, workflow_id=f"{new_id}-1")]
    Ledger(tmp_path / "ledger").wait_for_any("")
    refs.append(workflow.run_async(second, workflow_id=f"{new_id}-2"))

    def waiting(number: int) -> dict[str, int]:
        record = store.read_status(f"{new_id}-{number}")
        return record.progress.limited if record and record.progress else {}

    wait_until(lambda: waiting(1) == {one.name: 2} and waiting(2) == {one.name: 3})
    # Five wait and one runs, on four CPUs.
    assert ray.get(answer.options(num_cpus=3).remote(), timeout=60) == 42
    gate.open()
    assert ray.get(refs) == [["a", "b", "c"], ["x", "y", "z"]]
    assert Ledger(tmp_path / "ledger").lines() == ["a", "b", "c", "x", "y", "z"]
    lines = store.logs.read(f"{new_id}-2").lines
    assert any("waits for the limit one at a time (1 at once)" in line.text for line in lines)


@pytest.mark.usefixtures("manager")
def test_short_tasks_that_could_share_a_ray_task_keep_their_limits(tmp_path, gate, new_id):
    gate.open()
    names = [f"{number}" for number in range(50)]
    graph = together([short(tmp_path, gate, name) for name in names])
    assert workflow.run(graph, workflow_id=new_id) == names
    assert Ledger(tmp_path / "ledger").lines() == names


@pytest.mark.usefixtures("manager")
def test_a_rate_counts_what_begins_and_not_what_waits_for_a_cpu(gate, new_id, shared_root):
    store = WorkflowStore(open_store(str(shared_root)))
    busy = take_all_cpus.remote(gate)
    end = workflow.run_async(together([when() for _ in range(8)]), workflow_id=new_id)

    def waiting() -> tuple[int, dict[str, int]]:
        record = store.read_status(new_id)
        progress = record and record.progress
        return (progress.submitted, progress.limited) if progress else (0, {})

    # More than two periods pass meanwhile: progress is written each five seconds.
    wait_until(lambda: waiting() == (3, {slowly.name: 5}))
    gate.open()
    ray.get(busy)
    times = sorted(ray.get(end))
    # What lies between the word of a begin and the begin itself takes milliseconds.
    assert [later - earlier > 1.5 for earlier, later in zip(times, times[3:], strict=False)] == (
        [True] * 5
    )
