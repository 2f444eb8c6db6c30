"""No-op tasks with an S3 server that takes 20 ms for a request more than it does anyway."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.cluster import cluster, manager
from benchmarks.graphs import (
    bare_chain,
    bare_fan_out,
    bare_many,
    our_chain,
    our_fan_out,
    our_many,
    our_real_fan_out,
)
from benchmarks.rows import Row, by_count, by_rate, medians, seconds_of
from benchmarks.slow_s3 import Wire, slow_s3

DELAY_S = 0.02
#: What each workflow may cost besides its tasks: looked up, claimed, its statuses.
CONSTANT = 8


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 1_000)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        slow_s3(Path(folder), delay_s=DELAY_S) as (uri, wire),
        cluster(),
        manager(uri),
    ):
        for kind, bare, ours, number, workflows, goal in (
            ("chain", bare_chain, our_chain, size, 1, "≥ 1.5"),
            ("fan-out", bare_fan_out, our_fan_out, size, 1, "≥ 1"),
            ("workflows of 5", bare_many, our_many, size // 5, size // 5, "≥ 1"),
        ):
            counted = _Counted(wire, partial(ours, number))
            parties = {"bare": partial(seconds_of, partial(bare, number)), "ours": counted.seconds}
            parties["requests"] = lambda counted=counted: counted.requests  # of the turn just taken
            found = medians(parties, rounds=rounds)
            work = f"{kind}: {size:,} no-op tasks, S3 with 20 ms a request"
            rates = size / found["ours"], size / found["bare"]
            rows.append(by_rate(work, "bare Ray", ours=rates[0], theirs=rates[1], goal=goal))
            rows += request_rows(
                work, found["requests"], tasks=size, workflows=workflows, a_task=0.2
            )
        tasks = 20
        real = _Counted(wire, partial(our_real_fan_out, tasks))
        parties = {"ours": real.seconds, "requests": lambda: real.requests}
        used = medians(parties, rounds=rounds)["requests"]
        work = f"fan-out: {tasks} tasks of 50 ms, S3 with 20 ms a request"
        return rows + request_rows(work, used, tasks=tasks, workflows=1, a_task=1.0)


class _Counted:
    """A work, and how many requests it took.

    What has nothing to do with the work is a lease and a look for requests every few seconds.

    :ivar requests: of the latest run.
    """

    def __init__(self, wire: Wire, do: Callable[[], object]) -> None:
        self.requests = 0
        self._wire = wire
        self._do = do

    def seconds(self) -> float:
        """Run it."""
        before = self._wire.counts.total()
        seconds = seconds_of(self._do)
        self.requests = self._wire.counts.total() - before
        return seconds


def request_rows(work: str, used: float, *, tasks: int, workflows: int, a_task: float) -> list[Row]:
    """All of them, and what is left when each workflow has taken what it may."""
    allowed = CONSTANT * workflows
    return [
        by_count(
            f"{work}: all requests",
            f"{CONSTANT} a workflow and {a_task:g} a task",
            ours=used,
            allowed=allowed + a_task * tasks,
            unit="requests",
        ),
        by_count(
            f"{work}: requests a task beyond {CONSTANT} a workflow",
            f"{a_task:g}",
            ours=max(used - allowed, 0) / tasks,
            allowed=a_task,
            unit="requests",
        ),
    ]
