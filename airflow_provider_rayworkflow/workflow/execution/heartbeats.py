"""Notices attempts that are silent for longer than their tasks allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand

E = TypeVar("E", bound=Errand)

#: A beat needs so long at most from its task to here. A loop that is late itself has its calls then.
SLACK_S = 2.0


class Heartbeats(Generic[E]):
    """The beats of one run's attempts. It belongs to one event loop.

    :param on_silent: told an attempt that has been silent for longer than its ``heartbeat_timeout_s``.
    :param slack_s: how much longer.
    """

    def __init__(self, on_silent: Callable[[E], None], *, slack_s: float = SLACK_S) -> None:
        self._on_silent = on_silent
        self._slack_s = slack_s
        self._due: dict[E, asyncio.TimerHandle] = {}
        self._known: dict[tuple[str, int], E] = {}

    def known(self, task_id: str, attempt: int) -> E | None:
        """The attempt, if it has beaten."""
        return self._known.get((task_id, attempt))

    def beat(self, errand: E) -> None:
        """An attempt is alive; its task allows silence from now on."""
        if (timeout_s := errand.run.heartbeat_timeout_s) is None:
            return
        if (due := self._due.get(errand)) is not None:
            due.cancel()
        self._known[errand.run.task_id, errand.run.attempt] = errand
        # In two steps: beats that wait in a loop which was late come between them.
        half_s = self._slack_s / 2
        self._wait(errand, timeout_s + half_s, lambda: self._wait(errand, half_s, silent))

        def silent() -> None:
            del self._due[errand]
            self._on_silent(errand)

    def ended(self, errand: E) -> None:
        """An attempt has ended."""
        if not self._known:
            return
        if (due := self._due.pop(errand, None)) is not None:
            due.cancel()
        key = errand.run.task_id, errand.run.attempt
        if self._known.get(key) is errand:
            del self._known[key]

    def _wait(self, errand: E, wait_s: float, then: Callable[[], None]) -> None:
        self._due[errand] = asyncio.get_running_loop().call_later(wait_s, then)
