"""Who is running, and what it may ask of the runtime: readable inside a workflow task."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

_current: ContextVar[WorkflowContext | None] = ContextVar("workflow_context", default=None)


class TaskFolder(Protocol):
    """A durable place for the files of one task: a model's checkpoint directory, for example.

    It has whole versions. The latest one counts, as with saved states, and the earlier ones are deleted. All
    are gone when the task is committed.
    """

    def writing(self) -> AbstractContextManager[Path]:
        """Write the next version: a ``with`` block gets an empty local folder.

        When the block ends, its files are stored; then they are the latest version, whole and durable. After
        an exception, nothing is stored. Files are streamed, never whole in memory. Empty folders are left out,
        and a link to a file of the folder becomes a file.

        :raises ValueError: at the end of the block, for links that lead out of it and for what is no file.
        :raises OwnershipLostError: when a later run of the workflow has begun.
        :raises StorageError: when it can't be written.
        """

    def latest(self) -> Path | None:
        """A local folder with the files of the latest whole version; None without one.

        It is the attempt's own copy: changes of it are not stored. It is deleted with the attempt, or by the
        next call that gives a later version.

        :raises StorageError: when it can't be read.
        """


class TaskServices(Protocol):
    """What the runtime does for a running task; the methods are those of :class:`WorkflowContext`."""

    def saved(self) -> Any: ...
    def save(self, state: Any) -> None: ...
    @property
    def folder(self) -> TaskFolder: ...
    @property
    def should_stop(self) -> bool: ...
    def heartbeat(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowContext:
    """The task that is running: for idempotency keys and fencing tokens, and to keep what it has done so far.

    It may be used from any thread of the task's process. A copy in another process has the ids alone.

    :ivar attempt: 1 for the first attempt in this epoch.
    :ivar epoch: rises with each start, resume and recovery of the workflow.
    """

    workflow_id: str
    task_id: str
    attempt: int
    epoch: int
    services: TaskServices | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[..., WorkflowContext], tuple[Any, ...]]:
        return _without_services, (self.workflow_id, self.task_id, self.attempt, self.epoch)

    @property
    def saved(self) -> Any:
        """The latest state that this task has saved, in whatever attempt, run or cluster; None without one.

        Each access reads it anew: a fresh value, whose arrays may be changed. Nothing is compared: a state
        is given also if code or arguments have changed since. It is gone when the task is committed.

        :raises ValueError: when it can't be unpickled, by code that has changed for example.
        :raises StorageError: when it can't be read.
        """
        return self._services.saved()

    def save(self, state: Any) -> None:
        """Keep a state, in place of earlier ones: the next attempt of this task finds it as :attr:`saved`.

        It is durable when this returns, for a resume on any cluster.

        :param state: any value that can be pickled; large arrays are not copied.
        :raises TypeError: when it can't be stored.
        :raises OwnershipLostError: when a later run of the workflow has begun: this attempt counts no more.
        :raises StorageError: when it can't be written.
        """
        self._services.save(state)

    @property
    def folder(self) -> TaskFolder:
        """A durable place for files of this task, on whatever storage: see :class:`TaskFolder`."""
        return self._services.folder

    @property
    def should_stop(self) -> bool:
        """True once this attempt is to be stopped; cheap enough for each step of a loop.

        That is so when the workflow is suspended or canceled, when another task has failed it, or when a later
        run of it has begun. Then save and raise any exception: it counts as stopped, not as failed. What the
        task returns is its result as ever. The process is killed ``stop_grace_s`` later.
        """
        return self._services.should_stop

    def heartbeat(self) -> None:
        """Say that this attempt is alive, for its ``heartbeat_timeout_s``; cheap enough for each step of a loop.

        To save, print or log something says the same.
        """
        self._services.heartbeat()

    @property
    def _services(self) -> TaskServices:
        if self.services is None:
            raise RuntimeError("Only the process of the task itself can save and load its states.")
        return self.services


def _without_services(workflow_id: str, task_id: str, attempt: int, epoch: int) -> WorkflowContext:
    return WorkflowContext(workflow_id=workflow_id, task_id=task_id, attempt=attempt, epoch=epoch)


def get_context() -> WorkflowContext:
    """The context of the running workflow task.

    :raises RuntimeError: outside a workflow task.
    """
    context = _current.get()
    if context is None:
        raise RuntimeError("get_context() was called outside a workflow task.")
    return context


def get_current_workflow_id() -> str:
    """The id of the running workflow; see :func:`get_context`."""
    return get_context().workflow_id


def in_task() -> bool:
    """True inside a workflow task."""
    return _current.get() is not None


def enter(context: WorkflowContext) -> None:
    """Make this the current context for good: in a :class:`contextvars.Context` of its own."""
    _current.set(context)


class running:
    """Makes this the current context while it lasts."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: WorkflowContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)
