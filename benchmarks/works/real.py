"""Tasks of 50 ms."""

from __future__ import annotations

from functools import partial

from benchmarks.cluster import cluster, manager
from benchmarks.graphs import bare_real_chains, bare_real_fan_out, our_real_chains, our_real_fan_out
from benchmarks.rows import Row, by_rate, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, chains = (1, 2) if quick else (5, 20)
    tasks = chains * 10
    rows = []
    with cluster(), manager():
        for kind, bare, ours in (
            ("fan-out", partial(bare_real_fan_out, tasks), partial(our_real_fan_out, tasks)),
            (
                f"{chains} chains",
                partial(bare_real_chains, chains, 10),
                partial(our_real_chains, chains, 10),
            ),
        ):
            seconds = interleaved({"bare": bare, "ours": ours}, rounds=rounds)
            rows.append(
                by_rate(
                    f"{kind}: {tasks} tasks of 50 ms",
                    "bare Ray",
                    ours=tasks / seconds["ours"],
                    theirs=tasks / seconds["bare"],
                    goal="≥ 0.95",
                )
            )
    return rows
