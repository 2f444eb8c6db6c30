"""A pipeline of 100 small steps on a running cluster, against DBOS Transact with SQLite."""

from __future__ import annotations

from functools import partial

from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.graphs import our_chain
from benchmarks.rows import Row, by_time, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, steps = (1, 10) if quick else (5, 100)
    with cluster(), manager():
        seconds = interleaved({"ours": partial(our_chain, steps)}, rounds=rounds)
    if quick:
        return []
    theirs = peers.run("dbos", rounds, steps)["seconds"]
    return [
        by_time(
            f"a pipeline of {steps} steps",
            "DBOS Transact with SQLite",
            ours=seconds["ours"],
            theirs=theirs,
            goal="≥ 2",
        )
    ]
