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

_KINDS = {
    "chain": (bare_chain, our_chain),
    "fan-out": (bare_fan_out, our_fan_out),
    "workflows of 5": (bare_many, our_many),
}


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 1_000)
    with cluster(), manager():
        rows = [
            against_bare_ray("chain", size, rounds=rounds, goal="≥ 10"),
            against_bare_ray("fan-out", size, rounds=rounds, goal="≥ 8"),
            against_bare_ray("fan-out", size * 10, rounds=rounds, goal="≥ 8"),
            against_bare_ray("workflows of 5", size, rounds=rounds, goal="≥ 1.5"),
        ]
    return rows + ([] if quick else _against_ray_workflow(rows))


def against_bare_ray(kind: str, tasks: int, *, rounds: int, goal: str, note: str = "") -> Row:
    """A row of so many no-op tasks, as the manager that is up runs them.

    :param note: added to the work's name.
    """
    number = tasks // 5 if kind == "workflows of 5" else tasks
    bare, ours = (partial(do, number) for do in _KINDS[kind])
    seconds = interleaved({"bare": bare, "ours": ours}, rounds=rounds)
    return by_rate(
        f"{kind}: {tasks:,} no-op tasks{note}",
        "bare Ray",
        ours=tasks / seconds["ours"],
        theirs=tasks / seconds["bare"],
        goal=goal,
    )


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
