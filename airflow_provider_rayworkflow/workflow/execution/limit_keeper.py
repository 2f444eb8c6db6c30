"""Keeps the limits of one manager, for all workflows that it runs. It belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    InputsLost,
    NotBegun,
)
from airflow_provider_rayworkflow.workflow.scheduling.limit_lines import LimitLines, Ticket

log = get_logger(__name__)

_SHOWN_LIMITS = 20


class LimitKeeper:
    """The limits of one manager.

    Of two workflows that declare one limit with other numbers, those of the one that began later count, from
    its first task that asks.
    """

    def __init__(self) -> None:
        self._lines: LimitLines[Permit] = LimitLines(on_changed=_warn)
        self._orders = count()
        self._timer: asyncio.TimerHandle | None = None

    def begin_full(self) -> None:
        """Begin as if every rate were used up: a manager before this one has admitted attempts lately.

        Call it before the first task asks.
        """
        self._lines = LimitLines(full_since=self._now(), on_changed=_warn)

    def next_order(self) -> int:
        """For the permits of a run that begins now."""
        return next(self._orders)

    def ask(self, permit: Permit) -> None:
        """Ask for an attempt; it may be held when this returns, and else its ``on_admitted`` is called later."""
        admitted = self._lines.ask(permit, self._now())
        self._go_on([other for other in admitted if other is not permit])

    def blocked_by(self, permit: Permit) -> TaskLimit | None:
        """The limit for which it waits; None if it does not."""
        return None if permit.is_held else self._lines.blocked_by(permit, self._now())

    def begun(self, permit: Permit) -> None:
        """See :meth:`Permit.begun`."""
        self._lines.begun(permit, self._now())
        self._go_on([])

    def end(self, permit: Permit, *, did_begin: bool) -> None:
        """See :meth:`Permit.ended`."""
        self._go_on(self._lines.end(permit, self._now(), did_begin=did_begin))

    def _go_on(self, admitted: Sequence[Permit]) -> None:
        for permit in admitted:
            permit.on_admitted(permit)
        due_at = self._lines.next_due(self._now())
        if self._timer is not None:
            if self._timer.when() == due_at:
                return
            self._timer.cancel()
            self._timer = None
        if due_at is not None:
            self._timer = asyncio.get_running_loop().call_at(due_at, self._admit_due, due_at)

    def _admit_due(self, due_at: float) -> None:
        self._timer = None
        # A loop calls a little too early: within the resolution of its clock.
        self._go_on(self._lines.admit_due(max(due_at, self._now())))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class Permit(Ticket):
    """What one attempt asks of the limits of its task, and has got once it is held.

    It is given back once: by :meth:`ended`, or by :meth:`cancel` where there is no attempt.

    :param limits: of the task.
    :param order: of its run, see :meth:`LimitKeeper.next_order`.
    :param on_admitted: called with this when it is admitted after :meth:`LimitKeeper.ask` has returned.
    :ivar node: the task.
    """

    __slots__ = ("_keeper", "node", "on_admitted")

    def __init__(
        self,
        keeper: LimitKeeper,
        limits: Sequence[TaskLimit],
        *,
        order: int,
        node: Any,
        on_admitted: Callable[[Permit], None],
    ) -> None:
        super().__init__(limits, order=order)
        self._keeper = keeper
        self.node = node
        self.on_admitted = on_admitted

    def begun(self) -> None:
        """A worker has begun the attempt."""
        self._keeper.begun(self)

    def ended(self, end: AttemptEnd) -> None:
        """The attempt has ended."""
        self._keeper.end(self, did_begin=not isinstance(end, NotBegun | InputsLost))

    def cancel(self) -> None:
        """Ask no more, or give it back: there is no attempt."""
        self._keeper.end(self, did_begin=False)

    def when(self) -> float:
        """When it is due: not known."""
        return 0.0


def counts_by_limit(permits: Sequence[Permit]) -> dict[str, int]:
    """How many of them wait for which limit, or limits, by their names; those with the most."""
    # The tasks of a loop share their options: to look at the limits of each of them would take long.
    groups = Counter([id(permit.limits) for permit in permits])
    names = {id(permit.limits): ", ".join(permit.names) for permit in permits} if permits else {}
    found: Counter[str] = Counter()
    for group, number in groups.items():
        found[names[group]] += number
    return dict(found.most_common(_SHOWN_LIMITS))


def _warn(before: TaskLimit, now: TaskLimit) -> None:
    log.warning(
        "The limit %s counts from now on; it was %s. Workflows declare it with different numbers, and "
        "those of the one that began last count.",
        *(now, before),
    )
