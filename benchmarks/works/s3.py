"""No-op tasks with an S3 server that takes 20 ms for a request more than it does anyway."""

from __future__ import annotations

import statistics
import tempfile
import time
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
from benchmarks.rows import Row, by_count, by_rate
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
            theirs, mine, requests = [], [], []
            for turn in range(rounds + 1):
                begun_at = time.perf_counter()
                bare(number)
                between = time.perf_counter()
                before = _requests(wire)
                ours(number)
                ended_at = time.perf_counter()
                if turn:
                    theirs.append(between - begun_at)
                    mine.append(ended_at - between)
                    requests.append(_requests(wire) - before)
            work = f"{kind}: {size:,} no-op tasks, S3 with 20 ms a request"
            rate = size / statistics.median(mine), size / statistics.median(theirs)
            rows.append(by_rate(work, "bare Ray", ours=rate[0], theirs=rate[1], goal=goal))
            used = max(statistics.median(requests) - workflows * CONSTANT, 0) / size
            name = f"0.2 requests a task, and {CONSTANT} a workflow"
            rows.append(by_count(work, name, ours=used, allowed=0.2, unit="requests"))
        before, tasks = _requests(wire), 20
        our_real_fan_out(tasks)
        used = max(_requests(wire) - before - CONSTANT, 0) / tasks
        rows.append(
            by_count(
                f"fan-out: {tasks} tasks of 50 ms, S3 with 20 ms a request",
                f"1 request a task, and {CONSTANT} a workflow",
                ours=used,
                allowed=1.0,
                unit="requests",
            )
        )
    return rows


def _requests(wire: Wire) -> int:
    # What has nothing to do with the work is a lease and a look for requests every few seconds.
    return wire.counts.total()
