"""The manager and its tasks in threads of this process, for tests."""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.exceptions import RayActorError

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, WorkflowError
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.codec import dumps
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.log_line import TaskLines
from airflow_provider_rayworkflow.workflow.runtime.graphs.functions import originals
from airflow_provider_rayworkflow.workflow.runtime.locations import given, store_at
from airflow_provider_rayworkflow.workflow.runtime.service.actor import WorkflowManagementActor
from airflow_provider_rayworkflow.workflow.runtime.service.connect import stand_in
from airflow_provider_rayworkflow.workflow.runtime.service.runner import lost_to, with_positions
from airflow_provider_rayworkflow.workflow.runtime.testing.local_refs import (
    LocalRef,
    local_refs,
    outcome_of,
)
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.heartbeats import Beats, beats_of
from airflow_provider_rayworkflow.workflow.runtime.worker.manager_calls import Ask
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import INTERVAL_S, send_waiting
from airflow_provider_rayworkflow.workflow.runtime.worker.task import log_begin, run_task
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from airflow_provider_rayworkflow.workflow.runtime.worker.waits import Waits
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd, Errand, TaskRun
from airflow_provider_rayworkflow.workflow.storage import ByteStore
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S, Process

#: How many tasks run at once; those that wait for an event don't count.
_TASKS_AT_ONCE = 100


class InProcessManager:
    """A manager in a thread; its lease ends with the thread.

    :param store: where its workflows are kept.
    :param renewal_s: how often its lease is renewed, in seconds.
    :param make_manager: called with the arguments of :class:`Manager` but for those of its own choice.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        renewal_s: float = LEASE_TTL_S / 3,
        make_manager: Callable[..., Manager] = Manager,
    ) -> None:
        self._store = _Severable(store)
        self._renewal_s = renewal_s
        self._make_manager = make_manager
        self._location = f"in-process:{uuid.uuid4().hex}"
        self._started: Future[None] = Future()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="workflow manager", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While this lasts, the workflow API of this process calls this manager.

        At the end, what is running is suspended.

        :raises StorageError: when the storage can't be written.
        """
        with (
            local_refs(),
            originals(),
            given(self._location, cast(ByteStore, self._store)),
            stand_in(self),
        ):
            log_capture.install()
            try:
                self._thread.start()
                self._started.result()
                try:
                    yield
                finally:
                    self._end()
            finally:
                log_capture.uninstall()

    def crash(self) -> None:
        """End as if the process had been killed."""
        self._store.sever()
        self._loop.set_exception_handler(lambda loop, context: None)  # the dead don't complain
        self._end()

    def __getattr__(self, method: str) -> _Method:
        if method.startswith("_"):
            raise AttributeError(method)
        return _Method(functools.partial(self._call, method))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> LocalRef:
        if not self._thread.is_alive():
            raise RayActorError(error_msg="The workflow manager of this test is gone.")
        return LocalRef(
            asyncio.run_coroutine_threadsafe(
                self._answer(method, dumps((args, kwargs))), self._loop
            )
        )

    async def _answer(self, method: str, args: bytes) -> Callable[[], Any]:
        positional, named = pickle.loads(args)
        return await outcome_of(getattr(self._actor, method)(*positional, **named))

    def _end(self) -> None:
        with suppress(RuntimeError):  # it has ended before
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        # The system's thread, by which others see whether this one lives, ends a moment later.
        while self._process.is_here and not self._process.is_gone():
            time.sleep(0.001)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        self._process = Process.current_thread()
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # it belongs to the one who ends this thread
            self._error = exc

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._actor = _Actor(self._location, self._make_manager)
        try:
            manager = await self._actor._ready()
        except BaseException as exc:
            self._started.set_exception(exc)
            return
        self._started.set_result(None)
        while not self._ending.is_set():
            try:
                async with asyncio.timeout(self._renewal_s):
                    await self._ending.wait()
            except TimeoutError:
                with suppress(WorkflowError):
                    await asyncio.to_thread(manager.renew_lease)
        if not self._store.is_severed:
            await manager.close()


class _Method:
    """A method of an actor handle, as Ray has them."""

    def __init__(self, remote: Callable[..., LocalRef]) -> None:
        self.remote = remote


class _Severable:
    """A store that can be cut off, so that threads which outlive a crash write nothing."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self.is_severed = False

    def sever(self) -> None:
        self.is_severed = True

    def __getattr__(self, name: str) -> Any:
        if self.is_severed:
            raise DataSaveError("The workflow manager of this test has crashed.")
        return getattr(self._store, name)


class _Actor(WorkflowManagementActor):
    """The actor without Ray around it."""

    def __init__(self, location: str, make_manager: Callable[..., Manager]) -> None:
        self._uri = location
        self._make_manager = make_manager
        self._limits = Limits()
        self._sharing = True
        self._runner = None
        self._manager: Manager | None = None
        self._starting = asyncio.Lock()

    async def _ready(self) -> Manager:
        async with self._starting:
            if self._manager is None:
                manager = self._make_manager(
                    store=store_at(self._uri),
                    runner=_ThreadRunner(
                        self._uri,
                        ask=self._ask_from_thread,
                        on_overdue=lambda run: _kill_overdue(manager, run),
                        on_lines=lambda lines: manager.logs.add(lines),
                    ),
                    manager_id=uuid.uuid4().hex,
                    actor_id=uuid.uuid4().hex,
                    limits=self._limits,
                    package_version=__version__,
                    process=Process.current_thread(),
                )
                self._loop = asyncio.get_running_loop()
                await manager.start()
                self._manager = manager
            return self._manager

    def _ask_from_thread(self, method: str, *args: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self.ask(method, *args), self._loop)


def _kill_overdue(manager: Manager, run: TaskRun) -> None:
    manager.attempts.kill_overdue(run.workflow_id, run.task_id, run.epoch, run.attempt, 0)


@dataclass(slots=True, eq=False)
class _Started:
    errand: Errand
    log: TaskLog
    done: asyncio.Future[AttemptEnd]
    beats: Beats | None
    waiting: asyncio.Task[AttemptEnd] | None = None
    timer: asyncio.TimerHandle | None = None


class _ThreadRunner:
    """A :class:`Runner` with a thread for each task that does not wait.

    A thread can't be killed: a task that is stopped goes on to its end, and is ignored.

    :param ask: calls the manager, from any thread.
    :param on_overdue: told of a task whose time limit is over.
    :param on_lines: told what tasks have printed and logged.
    """

    def __init__(
        self,
        location: str,
        *,
        ask: Ask,
        on_overdue: Callable[[TaskRun], None],
        on_lines: Callable[[Sequence[TaskLines]], None],
    ) -> None:
        self._location = location
        self._ask = ask
        self._on_overdue = on_overdue
        self._on_lines = on_lines
        self._sending: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Started] = deque()
        self._running: set[_Started] = set()
        self._started: dict[Errand, _Started] = {}
        self._waits = Waits()

    def start(self, errand: Errand) -> None:
        log = TaskLog(errand.run)
        started = _Started(errand, log, self._loop.create_future(), beats_of(log))
        self._started[errand] = started
        self._send_later()
        started.done.add_done_callback(lambda done: self._ended(started))
        if errand.run.is_event:
            self._begin(started)
        else:
            self._queue.append(started)
            self._begin_next()

    def stop(self, errand: Errand) -> None:
        started = self._started.get(errand)
        if started is None:
            return
        if started.waiting is not None:
            started.waiting.cancel()
        if not started.done.done():
            started.done.set_result(lost_to(InterruptedError("it was stopped"), errand.run))

    def _begin_next(self) -> None:
        while self._queue and len(self._running) < _TASKS_AT_ONCE:
            started = self._queue.popleft()
            if not started.done.done():
                self._running.add(started)
                self._begin(started)

    def _begin(self, started: _Started) -> None:
        run = started.errand.run
        if run.timeout_s is not None:
            started.timer = self._loop.call_later(run.timeout_s, self._on_overdue, run)
        if run.is_event:
            started.waiting = self._loop.create_task(self._wait(run, started.log))
            started.waiting.add_done_callback(functools.partial(_take_over, started.done))
            return
        name = f"workflow task {run.workflow_id}@{run.task_id}"
        thread = threading.Thread(target=self._work, args=(started,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the system gives none
            started.done.set_exception(exc)

    async def _wait(self, run: TaskRun, task_log: TaskLog) -> AttemptEnd:
        log_capture.enter(task_log)
        refs: list[Any] = []
        run = with_positions(run, refs)
        store = store_at(self._location)
        return await self._waits.run(store, run, lambda: [ray.get(ref) for ref in refs])

    def _work(self, started: _Started) -> None:
        try:
            settle = functools.partial(_settle, started.done, self._execute(started))
        except BaseException as exc:  # it belongs to the task
            settle = functools.partial(_settle, started.done, lost_to(exc, started.errand.run))
        with suppress(RuntimeError):  # no caller waits any more: the event loop is closed
            self._loop.call_soon_threadsafe(settle)

    def _execute(self, started: _Started) -> AttemptEnd:
        refs: list[Any] = []
        run = with_positions(started.errand.run, refs)
        log_begin(run)
        log_capture.install()  # a test runner may have replaced the streams
        # References of its own: it may outlive the manager, and `ray.put` would start a Ray.
        with local_refs(), log_capture.into(started.log):
            values = [ray.get(ref) for ref in refs]
            return run_task(store_at(self._location), run, run.results, values, self._ask)

    def _send_later(self) -> None:
        if self._sending is None and self._started:
            self._sending = self._loop.call_later(INTERVAL_S, self._send)

    def _send(self) -> None:
        self._sending = None
        for one in self._started.values():
            if one.beats is not None and one.beats.is_due():
                run = one.errand.run
                self._ask("attempts.beat", run.workflow_id, run.task_id, run.epoch, run.attempt)
        send_waiting([started.log for started in self._started.values()], self._sent)
        self._send_later()

    def _sent(self, lines: Sequence[TaskLines]) -> bool:
        self._on_lines(lines)
        return True

    def _ended(self, started: _Started) -> None:
        if started.timer is not None:
            started.timer.cancel()
        self._running.discard(started)
        errand = started.errand
        del self._started[errand]
        if (lines := started.log.rest()) is not None:
            self._on_lines([lines])
        error = started.done.exception()
        errand.on_done(started.done.result() if error is None else lost_to(error, errand.run))
        self._begin_next()


def _settle(done: asyncio.Future[AttemptEnd], completion: AttemptEnd) -> None:
    if not done.done():  # else it was stopped meanwhile
        done.set_result(completion)


def _take_over(done: asyncio.Future[AttemptEnd], waiting: asyncio.Task[AttemptEnd]) -> None:
    if done.done() or waiting.cancelled():
        return
    if (error := waiting.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(waiting.result())
