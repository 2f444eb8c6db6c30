"""Resuming a workflow of which one task is not done."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import ray

from airflow_provider_rayworkflow import workflow
from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.graphs import pass_on
from benchmarks.rows import Row, by_time


@ray.remote
def fail_once(path: str, *values: Any) -> int:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return len(values)
    raise ValueError("the first time")


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 999)
    with cluster(), manager(), tempfile.TemporaryDirectory() as folder:
        small = statistics.median(_resume(folder, size) for _ in range(rounds))
        large = statistics.median(_resume(folder, size * 10) for _ in range(rounds))
    if quick:
        return []
    old = peers.run("ray_workflow", 3, 100)["resume"] / 100 * size
    return [
        by_time(
            f"resume with {size} of {size + 1:,} tasks done",
            "ray.workflow 2.47.1 (by its time for 100)",
            ours=small,
            theirs=old,
            goal="≥ 10",
        ),
        by_time(
            f"resume with {size * 10:,} of {size * 10 + 1:,} tasks done",
            "ray.workflow 2.47.1 (by its time for 100)",
            ours=large,
            theirs=old * 10,
            goal="≥ 10",
        ),
    ]


def _resume(folder: str, size: int) -> float:
    path, name = Path(folder, uuid.uuid4().hex), uuid.uuid4().hex
    graph = fail_once.bind(str(path), *[pass_on.bind(number) for number in range(size)])
    try:
        workflow.run(graph, workflow_id=name)
    except workflow.WorkflowExecutionError:
        begun_at = time.perf_counter()
        workflow.resume(name)
        return time.perf_counter() - begun_at
    raise RuntimeError("it should have failed")
