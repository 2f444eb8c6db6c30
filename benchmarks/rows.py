"""What a benchmark says: a row for each work and peer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure against another one.

    :ivar ratio: the larger, the better.
    :ivar goal: what the ratio shall be, as text.
    """

    work: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    goal: str


def by_rate(
    work: str, peer: str, *, ours: float, theirs: float, goal: str, unit: str = "tasks/s"
) -> Row:
    """A row of rates."""
    return Row(
        work=work,
        peer=peer,
        ours=round(ours, 1),
        theirs=round(theirs, 1),
        unit=unit,
        ratio=round(ours / theirs, 2),
        goal=goal,
    )


def by_time(work: str, peer: str, *, ours: float, theirs: float, goal: str) -> Row:
    """A row of times, in seconds."""
    return Row(
        work=work,
        peer=peer,
        ours=round(ours, 4),
        theirs=round(theirs, 4),
        unit="s",
        ratio=round(theirs / ours, 2),
        goal=goal,
    )


def by_amount(work: str, peer: str, *, ours: float, theirs: float, unit: str, goal: str) -> Row:
    """A row of what is used: the less, the better."""
    return Row(
        work=work,
        peer=peer,
        ours=round(ours, 3),
        theirs=round(theirs, 3),
        unit=unit,
        ratio=round(theirs / ours, 2) if ours else 99.0,
        goal=goal,
    )


def by_count(work: str, peer: str, *, ours: float, allowed: float, unit: str) -> Row:
    """A row of what may be used at most."""
    return Row(
        work=work,
        peer=peer,
        ours=round(ours, 3),
        theirs=allowed,
        unit=unit,
        ratio=round(allowed / ours, 2) if ours else 99.0,
        goal="≥ 1",
    )


def interleaved(
    parties: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median time of each party, in seconds; see :func:`medians`."""
    timed = {name: partial(seconds_of, do, clock=clock) for name, do in parties.items()}
    return medians(timed, rounds=rounds)


def medians(parties: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, float]:
    """The median of what each party says; they take turns. One more round warms them up.

    :param rounds: 0 for one that is not warmed up.
    """
    said: dict[str, list[float]] = {name: [] for name in parties}
    for number in range(rounds + 1):
        for name, do in parties.items():
            figure = do()
            if number or not rounds:
                said[name].append(figure)
    return {name: statistics.median(figures) for name, figures in said.items()}


def seconds_of(
    do: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """How long it takes."""
    begun_at = clock()
    do()
    return clock() - begun_at
