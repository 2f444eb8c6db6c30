"""Which tasks may begin under limits that workflows share. Pure: the time is an argument.

A *ticket* is one attempt of a task at the limits that it names. It waits until all of them admit it, in
the order of the questions: of two that name the same limit, the one that has asked first begins first. A
ticket takes all its limits at the same moment and holds none while it waits, so no two wait for each other;
and the one that has asked first of all is the first in each of its lines, so each gets its turn.

A rate counts when attempts begin in their workers. That is known later than it happens: an attempt that was
admitted may still wait for a CPU. Until it is known to have begun, it may begin at any moment, and so takes a
place in every span of time; afterwards it has its place for one period from then on. So not more than the
rate says begin in any span, however late workers are.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit, rate_of

#: Of more limits than these, idle ones are forgotten.
_MANY = 1_000

OnChanged = Callable[[TaskLimit, TaskLimit], None]


class TicketState(Enum):
    """How far an attempt is, as its limits see it."""

    WAITING = auto()
    ADMITTED = auto()  # and not known to have begun
    BEGUN = auto()
    ENDED = auto()  # or withdrawn


class Ticket:
    """One attempt of a task at its limits.

    :param limits: in the order of their names, each once.
    :param order: of the run that asks: of two declarations, that of the higher one counts.
    :ivar state: changed by :class:`LimitLines` only.
    """

    __slots__ = ("limits", "order", "state")

    def __init__(self, limits: Sequence[TaskLimit], *, order: int = 0) -> None:
        self.limits = limits
        self.order = order
        self.state = TicketState.WAITING

    @property
    def names(self) -> list[str]:
        return [limit.name for limit in self.limits]

    @property
    def is_held(self) -> bool:
        """True if it has been admitted and has not been given back."""
        return self.state in (TicketState.ADMITTED, TicketState.BEGUN)


T = TypeVar("T", bound=Ticket)


class LimitLines(Generic[T]):
    """All limits, with what waits and what is under way. Times are seconds of any clock that never jumps.

    :param full_since: as if so many as the rates allow had begun at this time: of what another process has
        admitted before, nothing is known. None: nothing was.
    :param on_changed: told the old and the new declaration where other numbers than before count.
    """

    def __init__(
        self,
        *,
        full_since: float | None = None,
        on_changed: OnChanged = lambda before, now: None,
    ) -> None:
        self._full_since = full_since
        self._on_changed = on_changed
        self._lines: dict[str, _Line[T]] = {}

    def ask(self, ticket: T, now: float) -> list[T]:
        """Let a new ticket wait; returns those that are admitted now, perhaps this one."""
        for limit in ticket.limits:
            line = self._lines.get(limit.name) or self._new_line(limit, ticket.order, now)
            before = line.limit
            if line.declare(limit, ticket.order):
                self._on_changed(before, limit)
            line.waiting[ticket] = None
        return self._admit(ticket.names, now)

    def begun(self, ticket: T, now: float) -> None:
        """An attempt has begun, now or before. That admits none: it takes as many places as before."""
        if ticket.state is TicketState.ADMITTED:
            ticket.state = TicketState.BEGUN
            for name in ticket.names:
                self._lines[name].note_begun(now)

    def end(self, ticket: T, now: float, *, did_begin: bool) -> list[T]:
        """An attempt has ended, or a ticket is withdrawn; returns the tickets that are admitted by that.

        Twice is once.

        :param did_begin: False if it is certain that it has not begun: then no rate counts it.
        """
        before, ticket.state = ticket.state, TicketState.ENDED
        if before is TicketState.ENDED:
            return []
        for name in ticket.names:
            line = self._lines[name]
            if before is TicketState.WAITING:
                del line.waiting[ticket]
                continue
            line.held -= 1
            if before is TicketState.ADMITTED:
                if did_begin:
                    line.note_begun(now)
                else:
                    line.unknown -= 1
        return self._admit(ticket.names, now)

    def admit_due(self, now: float) -> list[T]:
        """The tickets that time alone admits."""
        return self._admit(list(self._lines), now)

    def next_due(self, now: float) -> float | None:
        """When :meth:`admit_due` admits one; None where only an end, or word of a begin, can."""
        firsts = {next(iter(line.waiting)) for line in self._lines.values() if line.waiting}
        times = [self._due_at(ticket, now) for ticket in firsts]
        return min([time for time in times if time is not None], default=None)

    def _due_at(self, ticket: T, now: float) -> float | None:
        due_at = now
        for name in ticket.names:
            line = self._lines[name]
            line_due_at = line.due_at(now) if line.is_first(ticket) else None
            if line_due_at is None:
                return None
            due_at = max(due_at, line_due_at)
        return due_at

    def blocked_by(self, ticket: T, now: float) -> TaskLimit | None:
        """The first of its limits for which a ticket waits, as it is declared now."""
        for name in ticket.names:
            line = self._lines[name]
            if not (line.is_first(ticket) and line.is_open(now)):
                return line.limit
        return None

    def _new_line(self, limit: TaskLimit, order: int, now: float) -> _Line[T]:
        if len(self._lines) >= _MANY:
            self._lines = {
                name: line for name, line in self._lines.items() if not line.is_idle(now)
            }
        line = self._lines[limit.name] = _Line(limit, order, full_since=self._full_since)
        return line

    def _admit(self, names: Iterable[str], now: float) -> list[T]:
        admitted: list[T] = []
        to_look = list(names)
        while to_look:
            line = self._lines.get(to_look.pop())
            ticket = next(iter(line.waiting), None) if line else None
            if ticket is None:
                continue
            lines = [self._lines[name] for name in ticket.names]
            if all([one.is_first(ticket) and one.is_open(now) for one in lines]):
                for one in lines:
                    one.admit(ticket)
                ticket.state = TicketState.ADMITTED
                admitted.append(ticket)
                to_look += ticket.names  # the next ones in its lines
        return admitted


class _Line(Generic[T]):
    """One limit.

    :ivar held: attempts that were admitted and have not ended.
    :ivar unknown: of these, how many are not known to have begun.
    :ivar waiting: in the order of the questions; an OrderedDict gives and forgets its first one at once.
    """

    def __init__(self, limit: TaskLimit, order: int, *, full_since: float | None) -> None:
        self.held = 0
        self.unknown = 0
        self.waiting: OrderedDict[T, None] = OrderedDict()
        self._order = order
        self._full_since = full_since
        self._begun: deque[float] = deque()
        self._use(limit)

    def declare(self, limit: TaskLimit, order: int) -> bool:
        """Take over the numbers of a run that is later than the one whose numbers count; True for others."""
        if order <= self._order:
            return False
        self._order = order
        if limit == self.limit:
            return False
        self._use(limit)
        return True

    def _use(self, limit: TaskLimit) -> None:
        self.limit = limit
        self._rate = rate_of(limit.rate) if limit.rate is not None else None
        # Older ones than the last so many decide nothing.
        self._begun = deque(self._begun, maxlen=self._rate.number if self._rate else 0)

    def is_first(self, ticket: T) -> bool:
        return next(iter(self.waiting), None) is ticket

    def is_open(self, now: float) -> bool:
        """True if one more may begin."""
        due_at = self.due_at(now)
        return due_at is not None and due_at <= now

    def due_at(self, now: float) -> float | None:
        """When one more may begin if none ends or begins before; None for never."""
        at_once = self.limit.max_concurrency
        if at_once is not None and self.held >= at_once:
            return None
        if self._rate is None:
            return now
        number, period_s = self._rate
        # Of those that have begun, so many may be in one span with the next one.
        room = number - 1 - self.unknown
        if room < 0:
            return None
        due_at = now
        if len(self._begun) > room:
            due_at = max(due_at, self._begun[-1 - room] + period_s)
        if self._full_since is not None:
            due_at = max(due_at, self._full_since + period_s)
        return due_at

    def admit(self, ticket: T) -> None:
        del self.waiting[ticket]
        self.held += 1
        self.unknown += 1

    def note_begun(self, at: float) -> None:
        """One that was not known to have begun has, at this time or before."""
        self.unknown -= 1
        if self._rate is not None:
            self._begun.append(at)

    def is_idle(self, now: float) -> bool:
        """True if it decides no more than a new one would."""
        if self.held or self.waiting:
            return False
        return not (self._rate and self._begun) or self._begun[-1] + self._rate.period_s <= now
