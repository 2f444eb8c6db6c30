"""Ready tasks as Ray tasks, submitted by the manager, so that they outlive every driver."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.model import Result, TaskFailure
from airflow_provider_rayworkflow.workflow.runtime import private_ray
from airflow_provider_rayworkflow.workflow.runtime.events import EventHost
from airflow_provider_rayworkflow.workflow.runtime.worker import execute_task
from airflow_provider_rayworkflow.workflow.task_runs import Completion, Lost, TaskRun

log = logging.getLogger(__name__)

OnDone = Callable[[Completion], None]

#: How many events may be waited for at once.
MAX_EVENTS = 100_000

_MAX_EVENT_RETRIES = 10


@dataclass(slots=True, eq=False)
class _Started:
    run: TaskRun
    on_done: OnDone
    ref: Any = None
    is_stopped: bool = False
    used_refs: bool = False


class RayRunner:
    """A :class:`~..executor.Runner` on Ray.

    :param uri: of the storage, for the workers.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._loop = asyncio.get_running_loop()
        self._execute = ray.remote(max_retries=0)(execute_task)
        # A GPU is free for others only when its process has ended.
        self._execute_once = ray.remote(max_retries=0, max_calls=1)(execute_task)
        self._events: dict[str, Any] = {}
        self._completed: deque[tuple[_Started, Any]] = deque()

    def start(self, run: TaskRun, on_done: OnDone) -> _Started:
        started = _Started(run, on_done)
        self._submit(started)
        return started

    def stop(self, handle: _Started) -> None:
        handle.is_stopped = True
        # Cancelling a task that has ended can abort the process that owns it, which is this one.
        if handle.ref is not None and not ray.wait([handle.ref], timeout=0, fetch_local=False)[0]:
            ray.cancel(handle.ref, force=not handle.run.is_event)

    def _event_host(self, runtime_env: Any) -> Any:
        """The actor on which all events of a runtime environment are waited for."""
        name = json.dumps(runtime_env or {}, sort_keys=True, default=repr)
        if name not in self._events:
            host = ray.remote(EventHost).options(
                num_cpus=0,
                max_restarts=-1,
                # All who wait there lose a try when one listener kills the process, and another
                # one when they come back before it has restarted.
                max_task_retries=_MAX_EVENT_RETRIES,
                max_concurrency=MAX_EVENTS,
                runtime_env=runtime_env,
            )
            self._events[name] = host.remote()
        return self._events[name]

    def _submit(self, started: _Started) -> None:
        run = started.run
        try:
            values = [result.ref for result in run.inputs if result.ref is not None]
            started.used_refs = bool(values)
            payload = pickle.dumps((self._uri, with_positions(run)), protocol=5)
            # Not a name of its own for each task: Ray keeps metrics of every name for good, in this
            # process and in the workers. What tells tasks apart in the logs is `label_output`.
            options: dict[str, Any] = {"name": run.name or run.task_id}
            if run.ray_options:
                options |= pickle.loads(run.ray_options)
            once = options.pop("max_calls", None) or options.get("num_gpus")
            if run.is_event:
                started.ref = self._event_host(options.get("runtime_env")).execute.remote(
                    payload, *values
                )
            else:
                function = self._execute_once if once else self._execute
                started.ref = function.options(**options).remote(payload, *values)
            private_ray.when_completed(
                started.ref, lambda value: self._on_completed(started, value)
            )
        except Exception as exc:
            self._loop.call_soon(started.on_done, Lost(failure=system_failure(run, exc)))

    def _on_completed(self, started: _Started, value: Any) -> None:
        # On a thread of Ray. The loop is woken once for all that have completed by then.
        self._completed.append((started, value))
        if len(self._completed) == 1:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        while self._completed:
            started, value = self._completed.popleft()
            self._deliver(started, value)

    def _deliver(self, started: _Started, value: Any) -> None:
        if not isinstance(value, BaseException):
            started.on_done(value)
        elif _is_input_lost(value) and started.used_refs and not started.is_stopped:
            # The task did not begin. Perhaps the storage has the value, or else the task says so.
            inputs = tuple(_from_storage(result) for result in started.run.inputs)
            started.run = replace(started.run, inputs=inputs)
            self._submit(started)
        else:
            started.on_done(Lost(failure=system_failure(started.run, value)))


def with_positions(run: TaskRun) -> TaskRun:
    """The run as :func:`~.worker.run_task` takes it."""
    inputs, position = [], 0
    for result in run.inputs:
        if result.ref is not None:
            result, position = replace(result, ref=position), position + 1
        inputs.append(result)
    return replace(run, inputs=tuple(inputs))


def _is_input_lost(error: BaseException) -> bool:
    # The user's own errors come back as data: this one comes from Ray, loading the arguments.
    return isinstance(getattr(error, "cause", error), ray.exceptions.ObjectLostError)


def _from_storage(result: Result) -> Result:
    return replace(result, ref=None)


def system_failure(run: TaskRun, exc: BaseException) -> TaskFailure:
    """What kept a task from running to its end, as a failure that is not its own."""
    return TaskFailure(
        task_id=run.task_id,
        type=type(exc).__name__,
        message=str(exc),
        traceback="",
        system=True,
    )
