"""How tasks wait in one process: thousands of them take no thread and no file descriptor each.

Timers wait in the event loop of the process. Listeners are their authors' code, which may block, so
they wait in a loop of their own in another thread: one for each class of listeners, as long as any
of them waits. Where that loop is blocked, those that could not begin in it get a thread each.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from airflow_provider_rayworkflow.workflow.event_listener import EventListener, TimerListener
from airflow_provider_rayworkflow.workflow.execution.context import in_task
from airflow_provider_rayworkflow.workflow.execution.thread_pool import ThreadPool
from airflow_provider_rayworkflow.workflow.runtime.worker.task import Given, TaskCall, log_begin
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd, TaskRun
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

T = TypeVar("T")

#: A wait that could not begin for so long gets a thread of its own: its listener's loop is blocked.
BLOCKED_AFTER_S = 1.0

#: Where what tasks take is loaded, and what they give is stored.
_THREADS = 16

_Made = tuple[Callable[[], Coroutine[Any, Any, Given]] | None, BaseException | None]


class Wait(NamedTuple):
    """What a task returns that waits: a call of a listener.

    :ivar gives: the task's value; by default what the listener returns.
    """

    listener: type[EventListener]
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gives: Any = ...

    def make(self) -> _Made:
        """Make the listener; returns what calls it."""
        try:
            method = getattr(self.listener(), self.method)
        except BaseException as exc:
            return None, exc
        return functools.partial(self._call, method), None

    async def _call(self, method: Callable[..., Awaitable[Any]]) -> Given:
        try:
            value = await method(*self.args, **self.kwargs)
        except BaseException as exc:  # the task's failure; none may end the loop
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # this is us
            return None, exc
        return (value if self.gives is ... else self.gives), None

    def here(self) -> Any:
        """Itself inside a workflow; elsewhere, in a plain Ray task, what it gives."""
        if in_task():
            return self
        call, error = self.make()
        value, error = (None, error) if call is None else asyncio.run(call())
        if error is not None:
            raise error
        return value

    @property
    def may_block(self) -> bool:
        """True if this is code of the author."""
        return self.listener is not TimerListener

    @property
    def blocks_to_be_made(self) -> bool:
        """True if making the listener runs code of the author."""
        made = (self.listener.__init__, self.listener.__new__)
        return made != (object.__init__, object.__new__)


class Waits:
    """The tasks that wait in this process. It belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPool(_THREADS, thread_name_prefix="events")
        self._loops: dict[type, _Loop] = {}

    async def run(
        self, store: WorkflowStore, run: TaskRun, values: Callable[[], Sequence[Any]]
    ) -> AttemptEnd:
        """As :func:`run_task`, for a task that may return a :class:`Wait`; may be canceled.

        :param values: what the references among the inputs refer to; called in a thread.
        """
        log_begin(run)
        attempt = TaskCall(store, run)
        # All steps have one context, one after the other: what one sets, the next ones see.
        context = contextvars.copy_context()
        lost = await self._in_pool(lambda: attempt.load(run.results, values()))
        if lost is not None:
            return lost

        def begin() -> Given:
            attempt.enter()
            return attempt.call()

        value, error = await self._in_pool(lambda: context.run(begin))
        if error is None and isinstance(value, Wait):
            value, error = await self._wait(value, context)

        return await self._in_pool(lambda: context.run(attempt.ended, value, error))

    async def _in_pool(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _wait(self, wait: Wait, context: contextvars.Context) -> Given:
        if wait.blocks_to_be_made:
            made: Future[_Made] = Future()
            _start_thread(lambda: _settle(made, context.run(wait.make)))
            call, error = await asyncio.wrap_future(made)
        else:
            call, error = context.run(wait.make)
        if call is None:
            return None, error
        if not wait.may_block:
            return await asyncio.get_running_loop().create_task(call(), context=context)
        loop = self._loops.get(wait.listener)
        if loop is None:
            loop = self._loops[wait.listener] = _Loop(wait.listener.__qualname__)
        loop.users += 1
        try:
            return await _Call(call, context).given(loop)
        finally:
            loop.users -= 1
            if not loop.users:
                del self._loops[wait.listener]
                loop.end()


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="workflow listener", daemon=True).start()


def _settle(future: Future[T], result: T) -> None:
    with suppress(InvalidStateError):  # it was canceled meanwhile
        future.set_result(result)


class _Loop:
    """An event loop in a thread.

    :ivar users: how many waits need it.
    """

    def __init__(self, name: str) -> None:
        self.users = 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name=f"workflow events {name}", daemon=True).start()

    def end(self) -> None:
        """End it when what was canceled in it has ended."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _work(self) -> None:
        try:
            self.loop.run_forever()
            if canceled := asyncio.all_tasks(self.loop):
                self.loop.run_until_complete(asyncio.wait(canceled))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


class _Call:
    """One call of a listener, in the loop of its class, or in a thread of its own."""

    def __init__(
        self, call: Callable[[], Coroutine[Any, Any, Given]], context: contextvars.Context
    ) -> None:
        self._call = call
        self._context = context
        self._given: Future[Given] = Future()
        self._lock = threading.Lock()
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None
        self._is_canceled = False

    async def given(self, loop: _Loop) -> Given:
        """What it gives. Where that is canceled, the call is canceled, too."""
        waited = asyncio.wrap_future(self._given)
        begin, context = self._begin_in, self._context.copy()
        loop.loop.call_soon_threadsafe(begin, loop.loop, context=context)
        late = asyncio.get_running_loop().call_later(BLOCKED_AFTER_S, self._begin_apart)
        try:
            return await waited
        except asyncio.CancelledError:
            self._cancel()
            raise
        finally:
            late.cancel()

    def _may_begin(self) -> bool:
        with self._lock:
            has_begun, self._has_begun = self._has_begun, True
            return not has_begun and not self._is_canceled

    def _begin_in(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._may_begin():
            self._begun(loop.create_task(self._work()))

    def _begin_apart(self) -> None:
        if not self._may_begin():
            return
        context = self._context.copy()

        async def work() -> None:
            self._begun(asyncio.current_task())
            await self._work()

        def run() -> None:
            try:
                context.run(asyncio.run, work())
            except BaseException as exc:  # no loop could be made
                self._fail(exc)

        try:
            _start_thread(run)
        except RuntimeError as exc:  # no thread could be
            self._fail(exc)

    def _begun(self, task: asyncio.Task[None] | None) -> None:
        with self._lock:
            self._task = task
            if self._is_canceled and task is not None:
                task.cancel()

    async def _work(self) -> None:
        _settle(self._given, await self._call())

    def _fail(self, exc: BaseException) -> None:
        with suppress(InvalidStateError):
            self._given.set_exception(exc)

    def _cancel(self) -> None:
        with self._lock:
            self._is_canceled = True
            task = self._task
        if task is not None:
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)
