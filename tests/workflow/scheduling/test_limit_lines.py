"""Limits against random tasks, times and late workers: what they promise, and that each task gets its turn."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit, rate_of
from airflow_provider_rayworkflow.workflow.scheduling.limit_lines import (
    LimitLines,
    Ticket,
    TicketState,
)

FEW = TaskLimit(name="few", max_concurrency=2)
RATED = TaskLimit(name="rated", rate="3/10s")
BOTH = TaskLimit(name="both", max_concurrency=2, rate="2/4s")
LIMITS = (BOTH, FEW, RATED)


class World:
    """Attempts as they are, which the lines only hear of.

    :ivar asked: all tickets, in the order in which they have asked.
    :ivar admitted: those that were, in this order.
    :ivar began_at: when the attempts of each limit have really begun.
    """

    def __init__(self, *, full_since: float | None = None) -> None:
        self.lines: LimitLines[Ticket] = LimitLines(full_since=full_since)
        self.now = 0.0
        self.asked: list[Ticket] = []
        self.admitted: list[Ticket] = []
        self.running: list[Ticket] = []  # they have begun
        self.began_at: dict[str, list[float]] = {limit.name: [] for limit in LIMITS}

    @property
    def waiting(self) -> list[Ticket]:
        return [one for one in self.asked if one.state is TicketState.WAITING]

    @property
    def held(self) -> list[Ticket]:
        return [one for one in self.asked if one.is_held]

    def ask(self, limits: Sequence[TaskLimit]) -> Ticket:
        ticket = Ticket(limits)
        self.asked.append(ticket)
        self.take(self.lines.ask(ticket, self.now))
        return ticket

    def take(self, admitted: Sequence[Ticket]) -> None:
        assert all(ticket.is_held for ticket in admitted)
        self.admitted += admitted

    def begin(self, ticket: Ticket) -> None:
        """A worker begins it, and has not said so yet."""
        if ticket not in self.running:
            self.running.append(ticket)
            for name in ticket.names:
                self.began_at[name].append(self.now)

    def report(self, ticket: Ticket) -> None:
        self.lines.begun(ticket, self.now)

    def end(self, ticket: Ticket) -> None:
        did_begin = ticket in self.running
        if did_begin:
            self.running.remove(ticket)
        self.take(self.lines.end(ticket, self.now, did_begin=did_begin))

    def pass_time(self, until: float) -> None:
        while (due_at := self.lines.next_due(self.now)) is not None and due_at <= until:
            assert due_at > self.now  # else it would have been admitted before
            self.now = due_at
            admitted = self.lines.admit_due(self.now)
            assert admitted  # it is not woken in vain
            self.take(admitted)
        self.now = until
        assert self.lines.admit_due(self.now) == []  # it is not woken too late

    def check(self) -> None:
        for limit in LIMITS:
            if limit.max_concurrency is not None:
                held = [ticket for ticket in self.held if limit in ticket.limits]
                assert len(held) <= limit.max_concurrency
            if limit.rate is not None:
                count, period_s = rate_of(limit.rate)
                times = self.began_at[limit.name]
                spans = [
                    bisect_left(times, at + period_s) - index for index, at in enumerate(times)
                ]
                assert max(spans, default=0) <= count
            order = [self.asked.index(one) for one in self.admitted if limit in one.limits]
            assert all(earlier < later for earlier, later in pairwise(order))

    def drain(self) -> None:
        """Let all come to its end."""
        while self.waiting or self.held:
            for ticket in self.held:
                self.begin(ticket)
                self.end(ticket)
            if self.waiting and not self.held:
                due_at = self.lines.next_due(self.now)
                assert due_at is not None  # else they would wait for ever
                self.pass_time(due_at)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sets(st.sampled_from(range(3)), min_size=1)),
        st.tuples(st.sampled_from(["begin", "report", "end", "withdraw"]), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(0, 60).map(lambda quarters: quarters / 4)),
    ),
    max_size=80,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([None, 0.0]))
def test_no_span_has_more_begins_no_more_run_at_once_and_each_gets_its_turn(
    steps: Sequence[tuple[str, object]], full_since: float | None
):
    world = World(full_since=full_since)
    for what, given_ in steps:
        chosen = world.waiting if what == "withdraw" else world.held
        if what == "ask":
            world.ask([LIMITS[index] for index in sorted(given_)])
        elif what == "wait":
            world.pass_time(world.now + given_)
        elif chosen:
            ticket = chosen[given_ % len(chosen)]
            if what == "report":
                world.begin(ticket)
            step = {"begin": world.begin, "report": world.report, "end": world.end}
            step.get(what, world.end)(ticket)
        world.check()
    world.drain()
    world.check()
    withdrawn = len(world.asked) - len(world.admitted)
    assert withdrawn <= sum(what == "withdraw" for what, _ in steps)


def test_attempts_whose_workers_are_late_take_the_places_of_a_rate_until_they_have_begun():
    world = World()
    late = [world.ask([RATED]) for _ in range(3)]
    world.ask([RATED])
    world.pass_time(1000.0)  # the cluster has no CPU for any of them
    assert world.admitted == late
    for ticket in late:
        world.begin(ticket)
        world.report(ticket)
    world.pass_time(1009.0)
    assert world.admitted == late
    world.pass_time(1010.0)
    assert len(world.admitted) == 4


def test_an_attempt_that_has_not_begun_gives_its_place_in_a_rate_back():
    world = World()
    first, *_ = [world.ask([RATED]) for _ in range(3)]
    last = world.ask([RATED])
    world.end(first)
    assert last.is_held


def test_a_ticket_is_given_back_once():
    world = World()
    first, second = world.ask([FEW]), world.ask([FEW])
    third, fourth = world.ask([FEW]), world.ask([FEW])
    world.end(first)
    world.end(first)
    assert [ticket.is_held for ticket in (first, second, third, fourth)] == [
        *(False, True, True, False)
    ]


def test_a_ticket_holds_none_of_its_limits_while_it_waits_for_one():
    world = World()
    busy = [world.ask([FEW]), world.ask([FEW])]
    waits = world.ask([FEW, RATED])
    assert waits.state is TicketState.WAITING
    assert world.lines.blocked_by(waits, world.now) == FEW
    world.end(busy[0])
    assert waits.is_held
    assert world.lines.blocked_by(world.ask([BOTH, FEW, RATED]), world.now) == FEW


def test_a_ticket_overtakes_none_that_has_asked_before_in_one_of_its_lines():
    world = World()
    busy = [world.ask([FEW]), world.ask([FEW])]
    first, second = world.ask([FEW, RATED]), world.ask([BOTH, RATED])
    assert [first.is_held, second.is_held] == [False, False]
    world.end(busy[0])
    assert first.is_held
    assert second.is_held


def test_after_a_restart_the_whole_period_of_a_rate_passes_first():
    world = World(full_since=0.0)
    world.pass_time(4.0)
    ticket = world.ask([RATED])
    assert world.lines.next_due(world.now) == 10.0
    world.pass_time(10.0)
    assert ticket.is_held
    assert world.ask([FEW]).is_held  # nothing is to be known of those that run at once


@pytest.mark.parametrize(("order", "held"), [(1, 3), (0, 2)], ids=["a later run", "an earlier run"])
def test_the_numbers_of_the_latest_run_count(order: int, held: int):
    changes: list[tuple[TaskLimit, TaskLimit]] = []
    lines: LimitLines[Ticket] = LimitLines(on_changed=lambda *both: changes.append(both))
    more = TaskLimit(name="few", max_concurrency=3)
    tickets = [Ticket([FEW], order=0) for _ in range(4)] + [Ticket([more], order=order)]
    for ticket in tickets:
        lines.ask(ticket, 0.0)
    assert sum(ticket.is_held for ticket in tickets) == held
    assert changes == ([(FEW, more)] if order else [])
    lines.ask(Ticket([FEW], order=0), 0.0)  # the earlier run goes on with its own
    assert len(changes) <= 1


def test_a_faster_rate_counts_for_what_has_begun_before():
    lines: LimitLines[Ticket] = LimitLines()
    for _ in range(3):
        ticket = Ticket([RATED])
        lines.ask(ticket, 0.0)
        lines.end(ticket, 0.0, did_begin=True)
    faster = TaskLimit(name="rated", rate="4/10s")
    tickets = [Ticket([faster], order=1) for _ in range(2)]
    for ticket in tickets:
        lines.ask(ticket, 0.0)
    assert [ticket.is_held for ticket in tickets] == [True, False]


def test_limits_that_are_idle_are_forgotten_and_those_that_count_are_not():
    lines: LimitLines[Ticket] = LimitLines()
    held = Ticket([FEW, RATED])
    lines.ask(held, 0.0)
    for number in range(3_000):
        other = Ticket([TaskLimit(name=f"of customer {number}", max_concurrency=1)])
        lines.ask(other, float(number))
        lines.end(other, float(number), did_begin=True)
    second, third = Ticket([FEW]), Ticket([FEW])
    lines.ask(second, 3_000.0)
    lines.ask(third, 3_000.0)
    assert [second.is_held, third.is_held] == [True, False]
