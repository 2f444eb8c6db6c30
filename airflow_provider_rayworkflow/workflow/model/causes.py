"""Why an attempt of a task failed. Each cause has a budget of its own, see :mod:`.budgets`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Cause(StrEnum):
    """Why an attempt failed."""

    #: The task raised an exception.
    APPLICATION = "application"
    #: Its time was over.
    TIMEOUT = "timeout"
    #: Its node died, was drained or preempted.
    NODE_LOST = "node_lost"
    #: Its worker was killed because memory ran short.
    OUT_OF_MEMORY = "out_of_memory"
    #: Its worker ended: a segmentation fault, ``os._exit``, a kill.
    CRASHED = "crashed"
    #: All else: its environment, an object, the storage, an answer of Ray.
    SYSTEM = "system"

    @property
    def is_of_task(self) -> bool:
        """True where the task itself has failed, and not what it ran on."""
        return self in (Cause.APPLICATION, Cause.TIMEOUT)


def counts_text(counts: Mapping[str, int]) -> str:
    """How many attempts failed of each cause, for people: ``2 crashed, 1 out_of_memory``."""
    return ", ".join(f"{number} {cause}" for cause, number in counts.items())
