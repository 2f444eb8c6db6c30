"""What a runner is given, and what it gives back.

The executor decides what runs; a :class:`Runner` runs it somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from airflow_provider_rayworkflow.workflow.model.graph import Arguments
from airflow_provider_rayworkflow.workflow.model.records import (
    JsonOutput,
    Result,
    TaskFailure,
    TaskTimes,
)


class Earlier(NamedTuple):
    """Stands for the result of a task of the same workflow that runs before, in the same Ray task."""

    task_id: str


class TaskRun(NamedTuple):
    """One attempt of a task, as a runner takes it.

    :ivar function: the pickled function.
    :ivar arguments: its arguments, which refer to ``inputs`` by position.
    :ivar ray_options: pickled Ray options, ``b""`` for none.
    :ivar checkpoint: the worker stores a large value before it returns.
    :ivar wants_json: its value is the workflow's output.
    :ivar timeout_s: the worker stops an attempt that takes longer.
    :ivar is_event: it waits for something, and so runs beside the workers.
    :ivar name: what it asked to be called; tasks of a loop share it, and so do workflows.
    :ivar can_share: it may run in one Ray task with others.
    :ivar catches: those who take its result get ``(value, None)``.
    :ivar traceparent: the trace that its spans join, ``""`` for none.
    :ivar asks: amounts in place of those in ``ray_options``; see :func:`.with_amounts`.
    :ivar code: the code of the run, in place of that in ``ray_options`` (:func:`.with_code`).
    :ivar stop_grace_s: how long the attempt may go on when it is to be stopped; None if its task does
        not say.
    :ivar heartbeat_timeout_s: the attempt is stopped when it is silent for longer.
    :ivar tells_begin: its worker tells the manager at once when it calls the function.
    :ivar gathers: it takes the stored results that it is given, and not their values.
    :ivar batch_size: how many of its kind may share one Ray task, however long they take; 1 where that is
        decided by how long.
    :ivar saved_since: what the task has saved under earlier epochs is of a run that was given up.
    """

    workflow_id: str
    epoch: int
    task_id: str
    attempt: int
    function: bytes
    arguments: Arguments
    ray_options: bytes
    inputs: tuple[Result | Earlier, ...]
    checkpoint: bool
    wants_json: bool
    timeout_s: float | None = None
    is_event: bool = False
    name: str = ""
    can_share: bool = False
    catches: bool = False
    traceparent: str = ""
    code: tuple[tuple[str, str], ...] = ()
    saved_since: int = 0
    stop_grace_s: float | None = None
    asks: tuple[tuple[str, float], ...] = ()
    heartbeat_timeout_s: float | None = None
    tells_begin: bool = False
    gathers: bool = False
    batch_size: int = 1

    @property
    def environment(self) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """What tasks must have in common to share a Ray task."""
        return self.ray_options, self.code

    @property
    def results(self) -> list[Result]:
        """Those of its inputs that are known when its Ray task begins."""
        return [given for given in self.inputs if isinstance(given, Result)]


class Returned(NamedTuple):
    """The task returned a value.

    :ivar has_saved: something that it has saved while it ran is stored.
    """

    result: Result
    times: TaskTimes
    json_output: JsonOutput | None = None
    has_saved: bool = False


class Continued(NamedTuple):
    """The task returned a graph, whose output becomes its result; ``has_saved`` as of :class:`Returned`."""

    graph: bytes
    times: TaskTimes
    has_saved: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """The task raised an exception.

    :ivar exception: encoded, for ``__cause__`` and ``catch_exceptions``.
    :ivar retryable: one of those that the author wants retried.
    :ivar has_saved: as of :class:`Returned`.
    """

    failure: TaskFailure
    exception: bytes
    retryable: bool
    times: TaskTimes
    has_saved: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Ray could not run the task to its end: a worker, node or object was lost, or the storage failed.

    :ivar retryable: another attempt may get further. Not where the storage failed: calls of it have
        been tried again already.
    """

    failure: TaskFailure
    retryable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class InputsLost:
    """The task did not begin, because results that it takes are gone or damaged.

    :ivar positions: of these inputs.
    """

    positions: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The task did not begin, and nothing is wrong with it: it is ready, or waits, as before."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A Ray task that several shared was lost. This one may have begun; it runs again by itself."""


AttemptEnd = Returned | Continued | Raised | Lost | InputsLost | NotBegun | Interrupted

#: Whether a runner would have a task run right after another one.
Accept = Callable[[TaskRun], bool]


class Errand:
    """One attempt of a task on its way through a runner."""

    __slots__ = ("run",)

    def __init__(self, run: TaskRun) -> None:
        self.run = run

    def on_done(self, completion: AttemptEnd) -> None:
        """Take the end of the attempt. Called once, in the event loop that started it."""
        raise NotImplementedError

    def follow(self, accept: Accept) -> Errand | None:
        """The task that is ready as soon as this one and those before it in the same Ray task have ended.

        None if there isn't exactly one, or if it is not accepted. Else it is under way, too: its
        own ``on_done`` will be called after this one's.
        """
        return None


class Runner(Protocol):
    """Runs tasks somewhere else."""

    def start(self, errand: Errand) -> None:
        """Start a task."""

    def stop(self, errand: Errand) -> None:
        """Stop a started task for good; ``on_done`` is still called."""
