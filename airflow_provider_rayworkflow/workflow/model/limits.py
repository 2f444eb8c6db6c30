"""How many workflows may run and wait at once. Pure."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any

#: What the API takes and shows for "no limit".
UNLIMITED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one manager; None stands for a limit that is unset, so for no limit.

    :ivar max_running: workflows that run at once.
    :ivar max_pending: workflows that wait for a slot; 0 = no queue at all.
    """

    max_running: int | None = None
    max_pending: int | None = None

    def merged(self, other: Limits) -> Limits:
        """These limits with the other's where these have none.

        :raises ValueError: where both have one and they differ.
        """
        return Limits(
            max_running=_merge("max_running_workflows", self.max_running, other.max_running),
            max_pending=_merge("max_pending_workflows", self.max_pending, other.max_pending),
        )

    def to_json(self) -> dict[str, int | None]:
        return {"max_running": self.max_running, "max_pending": self.max_pending}

    def can_run(self, running: int) -> bool:
        """True if one more may run."""
        return self.max_running in (None, UNLIMITED) or running < (self.max_running or 0)

    def check_can_wait(self, pending: int) -> None:
        """Return if one more may wait.

        :raises queue.Full: if not.
        """
        if self.max_pending not in (None, UNLIMITED) and pending >= (self.max_pending or 0):
            raise queue.Full("Workflow queue has been full")


def check_limits(max_running: Any, max_pending: Any) -> Limits:
    """Validate what the caller gave.

    :raises TypeError: for anything but whole numbers and None; True and False are no numbers.
    :raises ValueError: for numbers that make no sense.
    """
    for name, value in (
        ("max_running_workflows", max_running),
        ("max_pending_workflows", max_pending),
    ):
        if value is not None and type(value) is not int:
            raise TypeError(f"'{name}' must be None or an integer, not {value!r}.")
    if max_running is not None and (max_running == 0 or max_running < UNLIMITED):
        raise ValueError(
            f"'max_running_workflows' must be None, -1 (no limit) or at least 1, not {max_running}."
        )
    if max_pending is not None and max_pending < UNLIMITED:
        raise ValueError(
            "'max_pending_workflows' must be None, -1 (no limit), 0 (no queue) or more, "
            f"not {max_pending}."
        )
    return Limits(max_running=max_running, max_pending=max_pending)


def _merge(name: str, current: int | None, new: int | None) -> int | None:
    if current is not None and new is not None and current != new:
        raise ValueError(
            f"The workflow manager of this cluster runs with {name}={current}, and {name}={new} "
            "was asked for. Pass the same value or None; other values need a new cluster or "
            "namespace."
        )
    return new if current is None else current
