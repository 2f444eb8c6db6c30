"""Which workflows run and which wait for a slot."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.model.limits import Limits


class OnCounts(Protocol):
    def __call__(self, *, running: int, pending: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """What was taken for a workflow: a slot, or a place in the queue.

    :ivar number: rises with each that is taken; the queue is in this order.
    """

    has_slot: bool
    number: int


class Slots:
    """The slots of one manager, and the queue before them.

    A free slot goes to the first of those that wait, and not to one that is on its way into the queue: a claim
    may take as long as the storage does.

    A workflow whose task waits for another workflow lends its slot meanwhile. If it kept the slot,
    the other workflow could wait for that slot for ever. The lender goes on when it has a slot
    again; no other workflow gets one before.

    An actor or a plain Ray task may also wait for a workflow. The manager can't tell which workflow
    waits for the actor, and so can't take that one's slot: the awaited workflow starts at once,
    beyond the limit.

    :param start: runs a workflow, which has a slot then; it gives the slot back.
    :param on_counts: told how many have a slot and how many wait.
    """

    def __init__(
        self, limits: Limits, *, start: Callable[[HeldWorkflow], None], on_counts: OnCounts
    ) -> None:
        self._limits = limits
        self._start = start
        self._on_counts = on_counts
        self._running = 0
        self._entering = 0  # workflows on their way into the queue
        self._pending: list[tuple[int, HeldWorkflow]] = []  # by the numbers of their places
        self._numbers = count()
        self._waits: Counter[HeldWorkflow] = Counter()  # of those that have lent their slot
        self._returning: deque[tuple[HeldWorkflow, asyncio.Future[None]]] = deque()

    @property
    def limits(self) -> Limits:
        return self._limits

    def set_limits(self, limits: Limits) -> bool:
        """Set the limits that are still unset; True if that changed any.

        :raises ValueError: when other limits are in force.
        """
        before, self._limits = self._limits, self._limits.merged(limits)
        self.start_pending()
        return before != self._limits

    def take(self, *, always: bool = False) -> Place:
        """Take a slot, or else a place in the queue.

        Either must be given back: by :meth:`enter`, or by :meth:`give_back`.

        :param always: there is a place in the queue, however full it is.
        :raises queue.Full: when neither is free.
        """
        if self._limits.can_run(self._running):
            self._running += 1
            self._tell()
            return Place(True, next(self._numbers))
        if not always:
            self._limits.check_can_wait(len(self._pending) + self._entering)
        self._entering += 1
        return Place(False, next(self._numbers))

    def enter(self, live: HeldWorkflow, place: Place) -> None:
        """Start a workflow on what was taken for it, or let it wait there."""
        if place.has_slot:
            self._start(live)
            return
        self._entering -= 1
        insort(self._pending, (place.number, live), key=_number_of)
        if live.needs_no_slot:
            self.start_at_once(live)
        self._tell()
        self.start_pending()  # a slot may have become free meanwhile

    def give_back(self, place: Place) -> None:
        """Give back what was taken for a workflow that did not begin."""
        if place.has_slot:
            self._running -= 1
            self._tell()
            self.start_pending()
        else:
            self._entering -= 1

    def start_at_once(self, live: HeldWorkflow) -> None:
        """Start a waiting workflow without regard to the limits."""
        waiting = [one for one in self._pending if one[1] is not live]
        if len(waiting) < len(self._pending):
            self._pending = waiting
            self._running += 1
            self._tell()
            self._start(live)

    def free(self, live: HeldWorkflow) -> None:
        """A workflow has left its slot; call :meth:`start_pending` when it has ended."""
        if live in self._waits:
            del self._waits[live]  # it has lent it
        else:
            self._running -= 1
        self._tell()

    @asynccontextmanager
    async def lent(self, live: HeldWorkflow) -> AsyncIterator[None]:
        """While this lasts, a task of a running workflow waits for another workflow."""
        if live not in self._waits:
            self._running -= 1
            self._tell()
        self._waits[live] += 1
        self.start_pending()
        try:
            yield
        finally:
            if live in self._waits:
                self._waits[live] -= 1
                if not self._waits[live]:
                    has_slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._returning.append((live, has_slot))
                    self._take_back()
                    await has_slot

    def _take_back(self) -> None:
        while self._returning:
            live, has_slot = self._returning[0]
            if live in self._waits and not self._waits[live]:
                if not self._limits.can_run(self._running):
                    return
                self._running += 1
                del self._waits[live]
                self._tell()
            self._returning.popleft()  # or it has ended, or waits again
            if not has_slot.done():
                has_slot.set_result(None)

    def start_pending(self) -> None:
        """Start what waits, as far as there are slots."""
        self._take_back()
        while self._pending and self._limits.can_run(self._running):
            _, live = self._pending.pop(0)
            self._running += 1
            self._tell()
            self._start(live)

    def _tell(self) -> None:
        self._on_counts(running=self._running, pending=len(self._pending))


def _number_of(waiting: tuple[int, HeldWorkflow]) -> int:
    return waiting[0]
