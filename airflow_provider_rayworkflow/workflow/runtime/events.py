"""Waiting for events in one actor for all workflows, which holds no worker and no CPU.

An event is two workflow tasks: one waits and its result is checkpointed, the next tells the
listener so. Both run on the :class:`EventHost` instead of a worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import resource
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

import ray
from ray.dag import FunctionNode

from airflow_provider_rayworkflow.workflow.event_listener import Event, EventListener, TimerListener
from airflow_provider_rayworkflow.workflow.runtime.options import carry
from airflow_provider_rayworkflow.workflow.runtime.packs import Packed, execute_pack

T = TypeVar("T")

#: What runs on the event host in place of a worker.
ON_EVENT_HOST = carry({"is_event": True})


def bind_event(listener: type[EventListener], args: Any, kwargs: Any) -> FunctionNode:
    """The graph of one event; its value is the event."""
    event = get_message.options(**ON_EVENT_HOST).bind(listener, *args, **kwargs)
    node: FunctionNode = message_committed.options(**ON_EVENT_HOST).bind(listener, event)
    return node


def bind_sleep(duration_s: float) -> FunctionNode:
    """The graph of a sleep. Its end is fixed when it begins to run, and is checkpointed."""
    end: Any = get_end_time.options(**ON_EVENT_HOST).bind(duration_s)
    return bind_event(TimerListener, (end,), {})


@ray.remote
def get_message(listener: type[EventListener], *args: Any, **kwargs: Any) -> Event:
    """Wait for the event."""
    return _run(listener().poll_for_event(*args, **kwargs))


@ray.remote
def message_committed(listener: type[EventListener], event: Event) -> Event:
    """Tell the listener that its event is checkpointed."""
    _run(listener().event_checkpointed(event))
    return event


@ray.remote
def get_end_time(duration_s: float) -> float:
    """When a sleep that begins now ends, in seconds since the epoch."""
    return time.time() + duration_s


class EventHost:
    """Runs each waiting task in a thread of its own, so that a listener may also block."""

    def __init__(self) -> None:
        # Each waiting thread has an event loop, and that a few file descriptors.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def execute(self, payload: bytes, *values: Any) -> Packed:
        """See :func:`~.packs.execute_pack`; may be canceled."""
        waiting = Waiting()
        done: asyncio.Future[Packed] = asyncio.get_running_loop().create_future()
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(work_for, waiting, done, functools.partial(execute_pack, payload, *values)),
            daemon=True,
        )
        thread.start()
        try:
            return await done
        except asyncio.CancelledError:
            waiting.cancel()
            raise


class Waiting:
    """One thread's event loop, from the outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._is_canceled = False

    def entered(self, task: asyncio.Task[Any]) -> None:
        with self._lock:
            self._task = task
            if self._is_canceled:
                task.cancel()

    def cancel(self) -> None:
        with self._lock:
            self._is_canceled = True
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


_waiting: ContextVar[Waiting | None] = ContextVar("waiting", default=None)


def work_for(waiting: Waiting, done: asyncio.Future[T], task: Callable[[], T]) -> None:
    """Run a task in this thread; ``done`` is of another thread's event loop."""
    _waiting.set(waiting)
    try:
        settle = functools.partial(_settle, done, completion=task())
    except BaseException as exc:  # it belongs to the one who waits for this thread
        settle = functools.partial(_settle, done, error=exc)
    done.get_loop().call_soon_threadsafe(settle)


def _settle(
    done: asyncio.Future[T],
    completion: T | None = None,
    error: BaseException | None = None,
) -> None:
    if done.done():  # canceled meanwhile
        return
    if completion is not None:
        done.set_result(completion)
    else:
        done.set_exception(error or RuntimeError("the task returned nothing"))


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        waiting, task = _waiting.get(), asyncio.current_task()
        if waiting is not None and task is not None:
            waiting.entered(task)
        return await coroutine

    return asyncio.run(main())
