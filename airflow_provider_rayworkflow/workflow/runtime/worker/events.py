"""Waiting for events in one actor for all workflows, which holds no worker and no CPU.

An event is two workflow tasks: one waits and its result is checkpointed, the next tells the
listener so. Both run on the :class:`EventHost` instead of a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import resource
import time
from typing import Any

from airflow_provider_rayworkflow.workflow.authoring.node import Call
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.event_listener import EventListener, TimerListener
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.names import at_location
from airflow_provider_rayworkflow.workflow.runtime.service.unpack import enter_archives
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.packs import Packed, dump_done
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import reported
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from airflow_provider_rayworkflow.workflow.runtime.worker.waits import Wait, Waits

#: What runs on the event host in place of a worker.
ON_EVENT_HOST = GivenOptions(workflow={"is_event": True})


def event_node(listener: type[EventListener], args: Any, kwargs: Any) -> Call[Any]:
    """The graph of one event; its value is the event."""
    event: Call[Any] = Call(get_message, (listener, *args), kwargs, ON_EVENT_HOST)
    return Call(message_committed, (listener, event), {}, ON_EVENT_HOST)


def sleep_node(duration_s: float) -> Call[None]:
    """The graph of a sleep. Its end is fixed when it begins to run, and is checkpointed."""
    end: Call[float] = Call(get_end_time, (duration_s,), {}, ON_EVENT_HOST)
    return event_node(TimerListener, (end,), {})


def get_message(listener: type[EventListener], *args: Any, **kwargs: Any) -> Any:
    """Wait for the event."""
    return Wait(listener, "poll_for_event", args, kwargs).here()


def message_committed(listener: type[EventListener], event: Any) -> Any:
    """Tell the listener that its event is checkpointed; the value is the event."""
    return Wait(listener, "event_checkpointed", (event,), {}, gives=event).here()


def get_end_time(duration_s: float) -> float:
    """When a sleep that begins now ends, in seconds since the epoch."""
    return time.time() + duration_s


class EventHost:
    """Runs all that waits; see :class:`Waits`."""

    def __init__(self) -> None:
        log_capture.install()
        log_to_stderr()
        # Listeners open connections.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._waits = Waits()

    async def execute(self, payload: bytes, *values: Any) -> Packed:
        """Wait for one event as :func:`execute_pack` runs a task; the call may be canceled."""
        begun_at = time.perf_counter()
        uri, _, (run,) = pickle.loads(payload)
        store = store_at(uri)
        await asyncio.to_thread(enter_archives, store)
        task_log = TaskLog(run)
        with at_location(uri), log_capture.into(task_log), reported(task_log):
            completion = await self._waits.run(store, run, lambda: values)
        lines = task_log.rest()
        done = completion, time.perf_counter() - begun_at
        return dump_done([done], [] if lines is None else [lines])
