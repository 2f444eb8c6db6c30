"""No-op tasks with ``cache=``: what it costs to look for their results, to put them there and to take them."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from airflow_provider_rayworkflow import workflow
from benchmarks.cluster import cluster, manager
from benchmarks.rows import Row, by_count, by_time, medians, seconds_of
from benchmarks.slow_s3 import Wire, slow_s3

#: Two listings, a claim and the entry; and a share of what is done for many tasks at once: commits, claims given back.
_REQUESTS_MISSING = 4.4
#: A listing and the entry; and a share of the commits.
_REQUESTS_FOUND = 2.2
#: Few tasks with cache= take less, in seconds of a CPU.
_TASK_S = 0.05
_CPUS = 2

_WAYS = ("plain", "missing", "found")


@workflow.task
def plain(number: int) -> int:
    return number


@workflow.task(cache=workflow.Cache())
def cached(number: int) -> int:
    return number


@workflow.task
def count(*numbers: int) -> int:
    return len(numbers)


class _FanOut:
    """Each way to get so many results.

    :param wire: counts requests; None where none are counted.
    :ivar requests: of the latest turn of each way.
    """

    def __init__(self, tasks: int, wire: Wire | None = None) -> None:
        self.requests: dict[str, int] = {}
        self._tasks = tasks
        self._wire = wire
        self._turns = itertools.count()
        self._latest = 0

    def seconds(self, way: str) -> float:
        """Run it."""
        if way == "missing":
            self._latest = next(self._turns) * self._tasks
        task: Any = plain if way == "plain" else cached
        numbers = range(self._latest, self._latest + self._tasks)
        before = self._wire.counts.total() if self._wire else 0
        seconds = seconds_of(lambda: workflow.run(count(*map(task, numbers))))
        if self._wire:
            self.requests[way] = self._wire.counts.total() - before
        return seconds


def measure(quick: bool) -> list[Row]:
    rounds, tasks = (1, 100) if quick else (3, 10_000)
    with cluster(), tempfile.TemporaryDirectory() as folder:
        with manager():
            rows = _rows(tasks, rounds, "files")
        with slow_s3(Path(folder), delay_s=0.02) as (uri, wire), manager(uri):
            rows += _rows(tasks // 10, rounds, "S3 with 20 ms a request", wire)
    return rows


def _rows(tasks: int, rounds: int, where: str, wire: Wire | None = None) -> list[Row]:
    fan_out = _FanOut(tasks, wire)
    seconds = medians({way: lambda way=way: fan_out.seconds(way) for way in _WAYS}, rounds=rounds)
    work = "fan-out of {:,} no-op tasks with cache=, {}: {}"
    rows = []
    working = tasks * _TASK_S / _CPUS
    for way, allowed in (("missing", _REQUESTS_MISSING), ("found", _REQUESTS_FOUND)):
        name = work.format(tasks, where, way)
        # What looks, claims and puts costs no CPU of the tasks: it is hidden while longer ones run.
        for peer, theirs, goal in (
            ("without it", seconds["plain"], "≥ 0.05"),
            (f"{_TASK_S * 1_000:g} ms of work each on {_CPUS} CPUs", working, "≥ 2"),
        ):
            rows.append(by_time(name, peer, ours=seconds[way], theirs=theirs, goal=goal))
        if wire:
            more = fan_out.requests[way] - fan_out.requests["plain"]
            each = by_count(
                f"{name}, requests a task more than without it",
                str(allowed),
                ours=more / tasks,
                allowed=allowed,
                unit="requests",
            )
            rows.append(each)
    return rows
