"""Resuming a workflow of which all tasks but one are done: how long it takes, and its requests."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray

from airflow_provider_rayworkflow import workflow
from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.graphs import pass_on
from benchmarks.rows import Row, by_count, by_time, medians
from benchmarks.slow_s3 import slow_s3

_OLD = "ray.workflow 2.47.1"
#: What a resume may ask of the storage: a listing, the task that runs, and as each workflow.
ALLOWED = 1 + 1 + 8


@ray.remote
def fail_once(path: str, *values: Any) -> int:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return len(values)
    raise ValueError("the first time")


def measure(quick: bool) -> list[Row]:
    rounds, done = (1, 49) if quick else (5, 999)
    with cluster():
        rows = _times(done, rounds, with_old=not quick)
        return rows + [_requests(number, rounds) for number in (done, _ten_times(done))]


def _times(done: int, rounds: int, *, with_old: bool) -> list[Row]:
    with (
        manager(),
        tempfile.TemporaryDirectory() as folder,
        peers.running("ray_workflow") if with_old else nullcontext() as old,
    ):
        parties = {
            "small": partial(_resume, folder, done),
            "large": partial(_resume, folder, _ten_times(done)),
        }
        if old:
            parties["old"] = partial(old, "resume", done)
        seconds = medians(parties, rounds=rounds)
    if not old:
        return []
    ten_times = f"{_OLD} (ten times its time with {done:,})"
    return [
        by_time(_work(done), _OLD, ours=seconds["small"], theirs=seconds["old"], goal="≥ 10"),
        by_time(
            _work(_ten_times(done)),
            ten_times,
            ours=seconds["large"],
            theirs=10 * seconds["old"],
            goal="≥ 10",
        ),
    ]


def _requests(done: int, rounds: int) -> Row:
    with (
        tempfile.TemporaryDirectory() as folder,
        slow_s3(Path(folder), delay_s=0) as (uri, wire),
        manager(uri),
    ):

        def resume() -> float:
            _fail(folder, done, name := uuid.uuid4().hex)
            before = wire.counts.total()
            workflow.resume(name)
            return wire.counts.total() - before

        used = medians({"ours": resume}, rounds=rounds)["ours"]
    name = "a listing, a request for the task that runs, and 8 a workflow"
    work = f"{_work(done)}, on S3"
    return by_count(work, name, ours=used, allowed=ALLOWED, unit="requests")


def _resume(folder: str, done: int) -> float:
    _fail(folder, done, name := uuid.uuid4().hex)
    begun_at = time.perf_counter()
    workflow.resume(name)
    return time.perf_counter() - begun_at


def _fail(folder: str, done: int, name: str) -> None:
    """Run a workflow whose last task fails, and won't again."""
    graph = fail_once.bind(f"{folder}/{name}", *[pass_on.bind(number) for number in range(done)])
    try:
        workflow.run(graph, workflow_id=name)
    except workflow.WorkflowExecutionError:
        return
    raise RuntimeError("it should have failed")


def _work(done: int) -> str:
    return f"resume with {done:,} of {done + 1:,} tasks done"


def _ten_times(done: int) -> int:
    """So many that there are ten times as many tasks, with the one that is left."""
    return (done + 1) * 10 - 1
