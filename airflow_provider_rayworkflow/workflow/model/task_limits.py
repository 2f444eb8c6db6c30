"""Limits that tasks of several workflows share: how many run at once, and how many begin in a time. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]

_RATE = re.compile(r"(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*(s|m|h|d|seconds?|minutes?|hours?|days?)")
_MOST_IN_A_TIME = 1_000_000  # each is remembered for the time
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Rate(NamedTuple):
    """So many attempts begin at most in any span of so many seconds."""

    number: int
    period_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskLimit:
    """A limit as it is declared, see :func:`.authoring.limits.limit`. Each manager keeps it for all its workflows.

    :ivar max_concurrency: attempts that run at once; None = any number.
    :ivar rate: as text, such as ``"50/minute"``; None = as many as come.
    """

    name: str
    max_concurrency: int | None = None
    rate: str | None = None

    def __str__(self) -> str:
        at_once = "" if self.max_concurrency is None else f"{self.max_concurrency} at once"
        return f"{self.name} ({', '.join(filter(None, [at_once, self.rate]))})"

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Json) -> TaskLimit:
        limit = cls(**value)
        check_limit(limit)
        return limit


def check_limit(limit: TaskLimit) -> None:
    """Return if a limit limits something.

    :raises ValueError: if not.
    """
    if not isinstance(limit.name, str) or not limit.name:
        raise ValueError(
            f"The name of a limit must be a string that is not empty, not {limit.name!r:.100}."
        )
    if limit.max_concurrency is None and limit.rate is None:
        raise ValueError(f"The limit {limit.name!r:.100} needs max_concurrency, rate, or both.")
    at_once = limit.max_concurrency
    if at_once is not None and (type(at_once) is not int or at_once < 1):
        raise ValueError(f"max_concurrency must be a whole number from 1, not {at_once!r:.100}.")
    if limit.rate is not None:
        rate_of(limit.rate)


def rate_of(text: Any) -> Rate:
    """What a rate such as ``"50/minute"`` or ``"5/10s"`` says.

    :raises ValueError: when it says nothing, or none at all.
    """
    found = _RATE.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 100 else None
    if found is not None:
        count, period_s = int(found[1]), float(found[2] or 1) * _UNITS_S[found[3][0]]
        if 0 < count <= _MOST_IN_A_TIME and period_s:
            return Rate(count, period_s)
    raise ValueError(
        'rate must be a number in a time, such as "10/second", "50/minute", "1000/hour" or "5/10s", '
        f"and the number {_MOST_IN_A_TIME} at most, not {text!r:.100}."
    )
