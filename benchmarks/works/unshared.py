"""No-op tasks, each checkpointed and synced, with a Ray task for each workflow task."""

from __future__ import annotations

from benchmarks.cluster import cluster, manager
from benchmarks.rows import Row
from benchmarks.works.tiny import against_bare_ray

_GOALS = {"chain": "≥ 0.6", "fan-out": "≥ 0.8", "workflows of 5": "≥ 0.7"}


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 1_000)
    with cluster(), manager(sharing=False):
        return [
            row
            for kind, goal in _GOALS.items()
            for row in against_bare_ray(kind, size, rounds=rounds, goal=goal, note=", sharing off")
        ]
