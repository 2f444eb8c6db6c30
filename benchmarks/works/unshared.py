"""The same with a Ray task for each workflow task."""

from __future__ import annotations

from functools import partial

from benchmarks.cluster import cluster, manager
from benchmarks.graphs import (
    bare_chain,
    bare_fan_out,
    bare_many,
    our_chain,
    our_fan_out,
    our_many,
)
from benchmarks.rows import Row, by_rate, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 500)
    rows = []
    with cluster(), manager(sharing=False):
        for kind, bare, ours, number, goal in (
            ("chain", bare_chain, our_chain, size, "≥ 0.6"),
            ("fan-out", bare_fan_out, our_fan_out, size, "≥ 0.8"),
            ("workflows of 5", bare_many, our_many, size // 5, "≥ 0.7"),
        ):
            parties = {"bare": partial(bare, number), "ours": partial(ours, number)}
            seconds = interleaved(parties, rounds=rounds)
            rows.append(
                by_rate(
                    f"{kind}: {size} no-op tasks, sharing off",
                    "bare Ray",
                    ours=size / seconds["ours"],
                    theirs=size / seconds["bare"],
                    goal=goal,
                )
            )
    return rows
