"""Which workflows run and which wait for a slot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from airflow_provider_rayworkflow.workflow.concurrency import Limits
from airflow_provider_rayworkflow.workflow.live import Live


class OnChange(Protocol):
    def __call__(self, *, running: int, pending: int) -> None: ...


class Slots:
    """The slots of one manager, and the queue before them.

    :param start: runs a workflow, which has a slot then; it gives the slot back.
    :param on_change: told how many have a slot and how many wait.
    """

    def __init__(
        self, limits: Limits, *, start: Callable[[Live], None], on_change: OnChange
    ) -> None:
        self._limits = limits
        self._start = start
        self._on_change = on_change
        self._running = 0
        self._entering = 0  # workflows on their way into the queue
        self._pending: deque[Live] = deque()

    @property
    def limits(self) -> Limits:
        return self._limits

    def set_limits(self, limits: Limits) -> bool:
        """Set limits that nobody has set yet; True if that changed something.

        :raises ValueError: when other limits are in force.
        """
        before, self._limits = self._limits, self._limits.merged(limits)
        self.start_pending()
        return before != self._limits

    def take(self) -> bool:
        """Take a slot (True), or else a place in the queue (False).

        Either must be given back: by :meth:`enter`, or by :meth:`give_back`.

        :raises queue.Full: when neither is free.
        """
        if self._limits.can_run(self._running):
            self._running += 1
            self._tell()
            return True
        self._limits.check_can_wait(len(self._pending) + self._entering)
        self._entering += 1
        return False

    def enter(self, live: Live, *, has_slot: bool) -> None:
        """Start a workflow on what was taken for it, or let it wait there."""
        if has_slot:
            self._start(live)
            return
        self._entering -= 1
        self._pending.append(live)
        self._tell()
        self.start_pending()  # a slot may have become free meanwhile

    def give_back(self, *, has_slot: bool) -> None:
        """Give back what was taken for a workflow that did not begin."""
        if has_slot:
            self.free()
            self.start_pending()
        else:
            self._entering -= 1

    def start_at_once(self, live: Live) -> None:
        """Start a waiting workflow without regard to the limits: it shall only end."""
        if live in self._pending:
            self._pending.remove(live)
            self._running += 1
            self._tell()
            self._start(live)

    def free(self) -> None:
        """A workflow has left its slot; call :meth:`start_pending` when it has ended."""
        self._running -= 1
        self._tell()

    def start_pending(self) -> None:
        """Start what waits, as far as there are slots."""
        while self._pending and self._limits.can_run(self._running):
            live = self._pending.popleft()
            self._running += 1
            self._tell()
            self._start(live)

    def _tell(self) -> None:
        self._on_change(running=self._running, pending=len(self._pending))
