"""A pipeline of 100 small steps where Ray runs already, against DBOS Transact with SQLite.

The steps' own time: what starts a process, Ray or DBOS is in `airflow_pipeline`.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.graphs import our_chain
from benchmarks.rows import Row, by_time, medians, seconds_of


def measure(quick: bool) -> list[Row]:
    rounds, steps = (1, 10) if quick else (5, 100)
    with (
        cluster(),
        manager(),
        nullcontext() if quick else peers.running("dbos_transact") as dbos,
    ):
        parties = {"ours": partial(seconds_of, partial(our_chain, steps))}
        if dbos:
            parties["theirs"] = partial(dbos, "pipeline", steps)
        seconds = medians(parties, rounds=rounds)
    if not dbos:
        return []
    return [
        by_time(
            f"a pipeline of {steps} steps: workflow.run on a running cluster",
            "DBOS Transact with SQLite, launched",
            ours=seconds["ours"],
            theirs=seconds["theirs"],
            goal="≥ 2",
        )
    ]
