"""No-op tasks, each checkpointed and synced: a chain, a fan-out, many workflows."""

from __future__ import annotations

from functools import partial

from benchmarks import peers
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
    rounds, size = (1, 50) if quick else (5, 1_000)
    rows = []
    with cluster(), manager():
        for kind, bare, ours, tasks, goal in (
            ("chain", bare_chain, our_chain, size, "≥ 10"),
            ("fan-out", bare_fan_out, our_fan_out, size, "≥ 8"),
            ("fan-out", bare_fan_out, our_fan_out, size * 10, "≥ 8"),
            ("workflows of 5", bare_many, our_many, size, "≥ 1.5"),
        ):
            number = tasks // 5 if kind == "workflows of 5" else tasks
            parties = {"bare": partial(bare, number), "ours": partial(ours, number)}
            seconds = interleaved(parties, rounds=rounds)
            name = f"{kind}: {tasks:,} no-op tasks"
            rows.append(
                by_rate(
                    name,
                    "bare Ray",
                    ours=tasks / seconds["ours"],
                    theirs=tasks / seconds["bare"],
                    goal=goal,
                )
            )
    return rows + ([] if quick else _against_ray_workflow(rows))


def _against_ray_workflow(rows: list[Row]) -> list[Row]:
    old = peers.run("ray_workflow", 3, 100)
    goals = {"chain": ("chain", "≥ 80"), "fan-out": ("fan-out", "≥ 100")}
    goals["workflows of 5"] = ("many", "≥ 30")
    found = []
    for row in rows:
        name, goal = goals[row.work.partition(":")[0]]
        found.append(
            by_rate(row.work, "ray.workflow 2.47.1", ours=row.ours, theirs=old[name], goal=goal)
        )
    return found
