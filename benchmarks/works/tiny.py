"""No-op tasks, each checkpointed and synced: a chain, a fan-out, many workflows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.graphs import bare_chain, bare_fan_out, bare_many, our_chain, our_fan_out, our_many
from benchmarks.rows import Row, by_rate, medians, seconds_of

_OLD = "ray.workflow 2.47.1"

_PARTIES: dict[str, dict[str, Callable[[int], object]]] = {
    "chain": {"bare Ray": bare_chain, "ours": our_chain},
    "fan-out": {"bare Ray": bare_fan_out, "ours": our_fan_out},
    "workflows of 5": {
        "bare Ray": lambda tasks: bare_many(tasks // 5),
        "ours": lambda tasks: our_many(tasks // 5),
    },
}
_GOALS = {
    "chain": {"bare Ray": "≥ 10", _OLD: "≥ 80"},
    "fan-out": {"bare Ray": "≥ 8", _OLD: "≥ 100"},
    "workflows of 5": {"bare Ray": "≥ 1.5", _OLD: "≥ 30"},
}


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 50) if quick else (5, 1_000)
    with (
        cluster(),
        manager(),
        nullcontext() if quick else peers.running("ray_workflow") as old,
    ):
        rates = {kind: _rates(kind, size, rounds, old) for kind in _PARTIES}
        rows = [
            row for kind, goals in _GOALS.items() for row in _rows(kind, size, rates[kind], goals)
        ]
        large = _rates("fan-out", size * 10, rounds)
        rows += _rows("fan-out", size * 10, large, _GOALS["fan-out"])
        if old:
            name = f"{_OLD} (its rate for {size:,})"
            large[name] = rates["fan-out"][_OLD]
            rows += _rows("fan-out", size * 10, large, {name: _GOALS["fan-out"][_OLD]})
    return rows


def against_bare_ray(kind: str, tasks: int, *, rounds: int, goal: str, note: str = "") -> list[Row]:
    """A row of so many no-op tasks, as the manager that is up runs them.

    :param note: added to the work's name.
    """
    return _rows(kind, tasks, _rates(kind, tasks, rounds), {"bare Ray": goal}, note)


def _rates(kind: str, tasks: int, rounds: int, old: peers.Ask | None = None) -> dict[str, float]:
    """Tasks a second of each party."""
    parties = {name: partial(seconds_of, partial(do, tasks)) for name, do in _PARTIES[kind].items()}
    if old:
        parties[_OLD] = partial(_seconds_of_old, old, kind, tasks)
    return {name: tasks / seconds for name, seconds in medians(parties, rounds=rounds).items()}


def _seconds_of_old(old: peers.Ask, kind: str, tasks: int) -> float:
    if kind == "workflows of 5":
        return old("many", tasks // 5, 5)
    return old(kind, tasks)


def _rows(
    kind: str, tasks: int, rates: dict[str, float], goals: dict[str, str], note: str = ""
) -> list[Row]:
    work = f"{kind}: {tasks:,} no-op tasks{note}"
    return [
        by_rate(work, peer, ours=rates["ours"], theirs=rates[peer], goal=goal)
        for peer, goal in goals.items()
        if peer in rates
    ]
