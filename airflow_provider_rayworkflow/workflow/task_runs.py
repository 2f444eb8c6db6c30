"""What a runner is given, and what it gives back.

The executor decides what runs; a :class:`Runner` runs it somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_rayworkflow.workflow.model import (
    JsonOutput,
    Result,
    TaskFailure,
    TaskTimes,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRun:
    """One attempt of a task, as a runner takes it.

    :ivar function: pickled function; :ivar arguments: its pickled arguments, which refer to
        ``inputs`` by position; :ivar ray_options: pickled Ray options, ``b""`` for none.
    :ivar checkpoint: the worker stores a large value before it returns.
    :ivar wants_json: its value is the workflow's output.
    :ivar timeout_s: the worker stops an attempt that takes longer.
    :ivar is_event: it waits for something, and so runs beside the workers.
    :ivar name: what it asked to be called; tasks of a loop share it, and so do workflows.
    """

    workflow_id: str
    epoch: int
    task_id: str
    attempt: int
    function: bytes
    arguments: bytes
    ray_options: bytes
    inputs: tuple[Result, ...]
    checkpoint: bool
    wants_json: bool
    timeout_s: float | None = None
    is_event: bool = False
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """The task returned a value."""

    result: Result
    times: TaskTimes
    json_output: JsonOutput | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Continued:
    """The task returned a graph, whose output is to be its result."""

    graph: bytes
    times: TaskTimes


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """The task raised an exception.

    :ivar exception: encoded, for ``__cause__`` and ``catch_exceptions``.
    :ivar retryable: one of those that the author wants retried.
    """

    failure: TaskFailure
    exception: bytes
    retryable: bool
    times: TaskTimes


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Ray could not run the task to its end: a worker, node or object was lost."""

    failure: TaskFailure


@dataclass(frozen=True, kw_only=True, slots=True)
class InputsLost:
    """The task did not begin, because results that it takes are gone or damaged.

    :ivar positions: of these inputs.
    """

    positions: tuple[int, ...]
    reason: str


Completion = Returned | Continued | Raised | Lost | InputsLost


class Runner(Protocol):
    """Runs tasks somewhere else."""

    def start(self, run: TaskRun, on_done: Callable[[Completion], None]) -> Any:
        """Start a task; ``on_done`` is called once, in the caller's event loop."""

    def stop(self, handle: Any) -> None:
        """Stop a started task for good; ``on_done`` is still called."""
