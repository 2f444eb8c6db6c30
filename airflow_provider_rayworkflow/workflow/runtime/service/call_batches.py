"""What many threads want done at the same time, done by one of them for all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class CallBatches(Generic[T]):
    """Calls a function with all that came while its last calls were under way.

    The threads that want something done take turns in leading a group. Who comes first goes at
    once, alone.

    :param perform: called with a group, in one of the threads that wait for it. What it raises,
        all of the group get.
    :param at_once: how many groups are under way at the same time.
    :param most: how many a group has at most.
    """

    def __init__(self, perform: Callable[[Sequence[T]], None], *, at_once: int, most: int) -> None:
        self._perform = perform
        self._at_once = at_once
        self._most = most
        self._line: _Line[T] = _Line()

    def do(self, item: T) -> None:
        """Have it done; blocks until it is."""
        if self._line.pid != os.getpid():  # after a fork: the leader is in the parent
            self._line = _Line()
        line, place = self._line, _Place(item)
        with line.lock:
            leads = line.leaders < self._at_once
            if leads:
                line.leaders += 1
            else:
                place.turn.acquire()
                line.waiting.append(place)
        if not leads:
            place.turn.acquire()
        if not place.is_done:
            self._lead(line, place)
        if place.error is not None:
            raise place.error

    def _lead(self, line: _Line[T], place: _Place[T]) -> None:
        with line.lock:
            group = [place, *line.waiting[: self._most - 1]]
            del line.waiting[: self._most - 1]
        error: BaseException | None = None
        try:
            self._perform([one.item for one in group])
        except BaseException as exc:
            error = exc
        with line.lock:
            successor = line.waiting.pop(0) if line.waiting else None
            if successor is None:
                line.leaders -= 1
        if successor is not None:
            successor.turn.release()
        for one in group:
            one.is_done, one.error = True, error
            if one is not place:
                one.turn.release()


class _Place(Generic[T]):
    """A caller's place in the line; ``turn`` is free when the thing is done, or when it shall lead."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.turn = threading.Lock()
        self.is_done = False
        self.error: BaseException | None = None


class _Line(Generic[T]):
    """Who waits, and how many lead, in one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.leaders = 0
        self.waiting: list[_Place[T]] = []
