"""Where pages wait for a storage: threads of their own for each one, and a deadline.

Airflow's API server runs what blocks in a few threads that all its routes share, those too on which
tasks depend. A storage that hangs must not take them: what pages read, they read in threads of the
storage's *lane*. A call that has not answered in time is abandoned: its caller gets a 503, and its
thread keeps its place in the lane until the storage lets go of it. So a storage that hangs holds a
few threads and hinders the pages of no other one.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

log = get_logger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

#: How long a page waits for an answer, from its request on.
DEADLINE_S = 5.0
#: The same for what a user has asked to be done: a cluster may have to be asked, and code to be sent there.
ACTION_DEADLINE_S = 60.0
#: How many calls of a lane run at once, with those that hang.
THREADS_EACH = 8
#: More callers than that don't wait for a thread of a lane.
MOST_WAITING = 200


class NoAnswerError(Exception):
    """The storage did not answer in time, or too many calls wait for it already."""


class _Turns:
    """Calls one after the other, in one thread that stays.

    The C library keeps for each thread what that has freed: in threads of their own, a few large pages would take
    a multiple of the memory of one.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_thread = False

    def run(self, call: Callable[[], T]) -> T:
        """Call when its turn comes.

        :raises NoAnswerError: when the job of the caller was abandoned before its end.
        """
        answer: Future[T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                stop_if_abandoned()
                answer.set_result(call())
            except BaseException as exc:
                answer.set_exception(exc)

        self._start()
        self._waiting.put(lambda: context.run(work))
        while not wait([answer], timeout=_LOOK_S).done:
            stop_if_abandoned()
        return answer.result()

    def _start(self) -> None:
        with self._lock:
            if not self._has_thread:
                thread = threading.Thread(
                    target=self._work, daemon=True, name="ray-workflow-large-pages"
                )
                thread.start()
                self._has_thread = True

    def _work(self) -> None:
        while True:
            self._waiting.get()()


_LOOK_S = 0.1


@dataclass(eq=False, slots=True)
class _Job:
    """One call.

    :ivar turns: of the lane, see :func:`in_turn`.
    :ivar is_abandoned: no page waits for its answer any more.
    """

    turns: _Turns
    is_abandoned: bool = False


@dataclass(eq=False, slots=True)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    has_turn: bool = False


@dataclass(eq=False, slots=True)
class _Lane:
    running: set[_Job] = field(default_factory=set)
    given: int = 0  # turns that were given and not taken yet
    waiting: deque[_Waiter] = field(default_factory=deque)

    @property
    def hung(self) -> int:
        return sum(job.is_abandoned for job in self.running)


_JOB: contextvars.ContextVar[_Job | None] = contextvars.ContextVar("job", default=None)


class Lanes:
    """The lanes of this process."""

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        threads_each: int = THREADS_EACH,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._deadline_s = deadline_s
        self._threads_each = threads_each
        self._most_waiting = most_waiting
        self._lanes: dict[Hashable, _Lane] = {}
        self._turns: dict[Hashable, _Turns] = {}
        self._lock = threading.Lock()

    def deadline(self, *, is_action: bool = False) -> float:
        """When a request that has just come has to be answered, by the event loop's clock.

        :param is_action: it asks for more than a page.
        """
        seconds = ACTION_DEADLINE_S if is_action else self._deadline_s
        return asyncio.get_running_loop().time() + seconds

    async def run(self, name: Hashable, call: Callable[[], T], *, until: float) -> T:
        """Call what blocks, in a thread of the lane.

        :param until: see :meth:`deadline`.
        :raises NoAnswerError: when that takes too long, or all threads of the lane hang.
        """
        job = await self._enter(name, until)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            _JOB.set(job)
            found: T | None = None
            error: BaseException | None = None
            try:
                found = call()
            except BaseException as exc:
                error = exc
            self._leave(name, job)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, answer, found, error)
            error = None  # else what its traceback holds stays until the garbage collector comes

        # A daemon: a storage that hangs must not keep the server from ending.
        thread = threading.Thread(
            target=context.run, args=(work,), daemon=True, name="ray-workflow-page"
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no more
            self._leave(name, job)
            raise NoAnswerError from None
        try:
            async with asyncio.timeout_at(until):
                return await answer
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                return answer.result()  # just in time; or the call's own error
            raise NoAnswerError from None
        finally:
            if not answer.done() or answer.cancelled():
                job.is_abandoned = True
                log.warning(
                    "A storage does not answer; %d calls of %r hang", self._hung(name), name
                )

    async def _enter(self, name: Hashable, until: float) -> _Job:
        loop = asyncio.get_running_loop()
        with self._lock:
            lane = self._lanes.setdefault(name, _Lane())
            if len(lane.running) + lane.given < self._threads_each:
                lane.running.add(job := _Job(self._turns_of(name)))
                return job
            if lane.hung >= self._threads_each or len(lane.waiting) >= self._most_waiting:
                raise NoAnswerError
            lane.waiting.append(waiter := _Waiter(loop, loop.create_future()))
        try:
            async with asyncio.timeout_at(until):
                await waiter.turn
        except BaseException as exc:
            with self._lock:
                if waiter.has_turn:
                    lane.given -= 1
                    self._give_turn(lane)
                else:
                    lane.waiting.remove(waiter)
            if isinstance(exc, TimeoutError):
                raise NoAnswerError from None
            raise
        with self._lock:
            lane.given -= 1
            lane.running.add(job := _Job(self._turns_of(name)))
        return job

    def _turns_of(self, name: Hashable) -> _Turns:
        return self._turns.setdefault(name, _Turns())

    def _leave(self, name: Hashable, job: _Job) -> None:
        with self._lock:
            lane = self._lanes[name]
            lane.running.discard(job)
            self._give_turn(lane)
            if not lane.running and not lane.given and not lane.waiting:
                del self._lanes[name]

    def _give_turn(self, lane: _Lane) -> None:
        while lane.waiting:
            waiter = lane.waiting.popleft()
            waiter.has_turn = True
            with suppress(RuntimeError):  # its loop has ended
                waiter.loop.call_soon_threadsafe(_settle, waiter.turn, None, None)
                lane.given += 1
                return

    def _hung(self, name: Hashable) -> int:
        """How many calls of a lane were abandoned and have not ended yet."""
        with self._lock:
            lane = self._lanes.get(name)
            return lane.hung if lane else 0


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return  # its caller has gone
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def stop_if_abandoned() -> None:
    """Raise :class:`NoAnswerError` in a call that was abandoned: it need not go on."""
    job = _JOB.get()
    if job is not None and job.is_abandoned:
        raise NoAnswerError


def in_turn(call: Callable[[], T]) -> T:
    """Call what takes much memory: of the calls of a lane, one at a time does it.

    :raises NoAnswerError: when the job was abandoned before its end.
    """
    job = _JOB.get()
    return call() if job is None else job.turns.run(call)


def each(call: Callable[[Item], T], items: Iterable[Item], *, at_once: int) -> list[T]:
    """Call for each item, several at once, in threads that keep no process from ending.

    Ends early when the call that this is a part of is abandoned.

    :raises NoAnswerError: then.
    """
    todo = list(enumerate(items))
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    numbers = iter(todo)
    lock = threading.Lock()

    def work() -> None:
        while not errors:
            with lock:
                number, item = next(numbers, (-1, None))
            if item is None and number < 0:
                return
            try:
                stop_if_abandoned()
                results[number] = call(item)  # type: ignore[arg-type]
            except BaseException as exc:
                errors.append(exc)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        for _ in range(min(at_once, len(todo)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number, _ in todo]
