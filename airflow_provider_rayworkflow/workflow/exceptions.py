"""The errors of the runtime. The manager and the command line have a few of their own.

.. code-block:: text

    WorkflowError
    ├── WorkflowExecutionError            a task failed (FAILED) or Ray could not run it (RESUMABLE)
    │   └── FailedOutputError             the same, found by ``get_output`` (also a ValueError)
    ├── WorkflowCancellationError         the workflow was canceled
    │   └── CanceledOutputError           the same, found by ``get_output`` (also a ValueError)
    ├── WorkflowSuspendedError            the workflow was suspended and can be resumed
    │   └── SuspendedOutputError          it or its manager was stopped, found by ``get_output`` (also a ValueError)
    ├── WorkflowNotFoundError             nothing is stored under the id
    ├── WorkflowNotResumableError         nothing to resume, or a final status
    │   └── WorkflowTaskNotRecoverableError
    ├── WorkflowTaskTimeoutError          a task took longer than its ``timeout_s``, or was silent
    ├── MapFailedError                    more items of a map failed than its ``max_failed``
    ├── WorkflowEventHandleError          an HTTP event could not be handled
    ├── WorkflowStillActiveError          the call needs a workflow that is not running or pending
    ├── WorkflowChangedError              ``on_change="refuse"`` met tasks that have changed (also a ValueError)
    ├── WorkflowAlreadyExistsError        ``on_existing="fail"`` met an existing id (also a RuntimeError)
    ├── IllegalTransitionError            a status change that the table does not have
    ├── OwnershipLostError                another manager may own the workflow now, or it was deleted
    ├── LeaseLostError                    a manager could not renew its lease in time
    └── StorageError
        ├── DataLoadError                 an object could not be read
        │   └── CorruptedDataError        it was read, but its size, checksum or form is wrong
        │       └── UntrustedDataError    it was read, but no key of this process has signed it
        ├── DataSaveError                 an object could not be written
        └── KeyNotFoundError              no object under the key (also a KeyError)

Each survives pickling with its attributes and its ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any


class WorkflowError(Exception):
    """Root of the runtime's errors.

    :ivar message: the text of the error.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # The default would call the constructor with the finished text, and lose all causes.
        return _rebuild, (type(self), _causes(self)), self.__dict__


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    while (cause := error.__cause__) is not None and cause not in causes:
        causes.append(cause)
        error = cause
    return causes


def _rebuild(cls: type[WorkflowError], causes: Sequence[BaseException] = ()) -> WorkflowError:
    rebuilt = cls.__new__(cls)
    for error, cause in pairwise([rebuilt, *causes]):
        error.__cause__ = cause
    return rebuilt


class WorkflowExecutionError(WorkflowError):
    """A workflow ended because a task failed.

    :ivar workflow_id: the workflow.
    :ivar task_id: the task that failed, where it is known.
    :ivar task_traceback: the original traceback of the task as text, ``""`` where unknown.

    ``__cause__`` is the exception of the task, or where that could not be pickled, an error with
    its text.
    """

    def __init__(
        self,
        workflow_id: str,
        *,
        task_id: str | None = None,
        reason: str = "",
        task_traceback: str = "",
    ) -> None:
        message = f"Workflow[id={workflow_id}] failed during execution."
        if task_id is not None:
            message += f" Task[id={task_id}] failed"
            message += f": {reason}" if reason else "."
        elif reason:
            message += f" {reason}"
        if task_traceback:
            message += f"\n{task_traceback.rstrip()}"
        super().__init__(message)
        self.workflow_id = workflow_id
        self.task_id = task_id
        self.task_traceback = task_traceback


class WorkflowCancellationError(WorkflowError):
    """The workflow was canceled while a caller waited for it, or before its output was asked for."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(f"Workflow[id={workflow_id}] is cancelled during execution.")
        self.workflow_id = workflow_id


class FailedOutputError(WorkflowExecutionError, ValueError):
    """``get_output`` of a workflow that failed; a ValueError as in Ray Workflows."""


class CanceledOutputError(WorkflowCancellationError, ValueError):
    """``get_output`` of a workflow that was canceled; a ValueError as in Ray Workflows."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.message = f"Cannot load output: workflow {workflow_id!r} is canceled."


class WorkflowSuspendedError(WorkflowError):
    """The workflow was stopped with its checkpoints kept; ``resume`` goes on with it."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(f"Workflow[id={workflow_id}] was suspended. Resume it to go on.")
        self.workflow_id = workflow_id


class SuspendedOutputError(WorkflowSuspendedError, ValueError):
    """``get_output`` of a workflow that can be resumed; a ValueError as in Ray Workflows."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.message = (
            f"Cannot load output: workflow {workflow_id!r} was suspended, or its manager is gone. "
            "Resume it to go on."
        )


class WorkflowNotFoundError(WorkflowError):
    """Nothing is stored under the workflow id."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(f"Workflow[id={workflow_id}] was referenced but doesn't exist.")
        self.workflow_id = workflow_id


class WorkflowNotResumableError(WorkflowError):
    """The workflow does not exist, or its status is final."""

    def __init__(self, workflow_id: str, *, reason: str = "") -> None:
        message = f"Workflow[id={workflow_id}] is not resumable."
        super().__init__(f"{message} {reason}" if reason else message)
        self.workflow_id = workflow_id


class WorkflowTaskNotRecoverableError(WorkflowNotResumableError):
    """A task can neither be loaded nor run again."""

    def __init__(self, task_id: str) -> None:
        super().__init__("")
        self.message = f"Workflow task[id={task_id}] is not recoverable"
        self.task_id = task_id


class WorkflowTaskTimeoutError(WorkflowError, TimeoutError):
    """A task took longer than its ``timeout_s``, or was silent for its ``heartbeat_timeout_s``, and was stopped.

    :ivar timeout_s: the one of them, in seconds.
    :ivar is_silent: it was the latter.
    """

    def __init__(self, task_id: str, timeout_s: float, *, is_silent: bool = False) -> None:
        super().__init__(
            f"Task[id={task_id}] was silent for longer than its heartbeat_timeout_s of {timeout_s:g} s: "
            "it has not saved, printed, logged or called heartbeat()."
            if is_silent
            else f"Task[id={task_id}] took longer than its timeout_s of {timeout_s:g} s."
        )
        self.task_id = task_id
        self.timeout_s = timeout_s
        self.is_silent = is_silent


class MapFailedError(WorkflowError):
    """More items of a map failed than may.

    :ivar name: of the function that was mapped.
    :ivar failed: how many have failed when the map ended: the others were stopped, or did not begin.
    :ivar items: how many items the map has.
    :ivar max_failed: how many may fail.
    :ivar first: the first failed items, each with its error, as text.
    """

    def __init__(
        self, name: str, *, failed: int, items: int, max_failed: int, first: Sequence[str]
    ) -> None:
        self.name, self.failed, self.items = name, failed, items
        self.max_failed, self.first = max_failed, tuple(first)
        listed = "".join(f"\n- {one}" for one in self.first)
        super().__init__(
            f"{failed} of the {items} items of {name}.map failed, more than max_failed allows "
            f"({max_failed}). Mend what they failed of and resume, or allow more. The first ones:{listed}"
        )


class WorkflowEventHandleError(WorkflowError):
    """An HTTP event could not be handled.

    :param what_happened: the reason, for people.
    """

    def __init__(self, workflow_id: str, what_happened: str) -> None:
        super().__init__(f"Workflow[id={workflow_id}] HTTP event handle failed: {what_happened}")
        self.workflow_id = workflow_id


class WorkflowStillActiveError(WorkflowError):
    """The workflow is running or pending, and the operation needs an inactive one.

    :param may_be_gone: its owner seems to have died, and that is not certain yet.
    """

    def __init__(self, operation: str, workflow_id: str, *, may_be_gone: bool = False) -> None:
        problem = (
            "may still be running: its manager has to stay silent for a whole lease time (15 s) "
            "before anything takes the workflow over. Try again then."
            if may_be_gone
            else "is still running or pending. Suspend or cancel it, or wait for its end."
        )
        super().__init__(
            f"{operation} couldn't be completed because Workflow[id={workflow_id}] {problem}"
        )
        self.operation = operation
        self.workflow_id = workflow_id


class WorkflowAlreadyExistsError(WorkflowError, RuntimeError):
    """The id is taken, and the caller asked for a new one (``on_existing="fail"``, ``fork``)."""

    def __init__(
        self,
        workflow_id: str,
        status: str,
        *,
        remedy: str = 'or pass on_existing="resume" to attach to it',
    ) -> None:
        super().__init__(
            f"Workflow[id={workflow_id}] already exists with status {status}. Choose another id, "
            f"{remedy}."
        )
        self.workflow_id = workflow_id
        self.status = status


class WorkflowChangedError(WorkflowError, ValueError):
    """The given graph differs from that of the checkpoints, and the caller refuses changes.

    :ivar changes: what has changed, a line for each task.
    """

    def __init__(self, workflow_id: str, changes: Sequence[str]) -> None:
        shown = [*changes[:20], *(["…"] if len(changes) > 20 else [])]
        super().__init__(
            f"Workflow[id={workflow_id}] has changed since its checkpoints were made, and "
            'on_change is "refuse". Run it with on_change="reuse" or "rerun_changed", or under '
            "another id. Changed are:\n" + "\n".join(f"  {line}" for line in shown)
        )
        self.workflow_id = workflow_id
        self.changes = list(changes)


class IllegalTransitionError(WorkflowError):
    """The table of legal transitions lacks this status change."""

    def __init__(self, workflow_id: str, current: str, new: str) -> None:
        super().__init__(f"Workflow[id={workflow_id}] can't go from {current} to {new}.")
        self.workflow_id = workflow_id
        self.current = current
        self.new = new


class OwnershipLostError(WorkflowError):
    """This manager may not go on with the workflow, and has stopped.

    Another one has claimed a later epoch, or may do so, since the lease could not be renewed in
    time; or the workflow was deleted while it ran.

    :ivar is_deleted: the workflow's claim is gone from the storage, or is not this manager's.
    """

    def __init__(
        self, workflow_id: str, epoch: int, *, reason: str = "", is_deleted: bool = False
    ) -> None:
        reason = reason or f"it was claimed by another manager after epoch {epoch}"
        super().__init__(
            f"This manager has stopped working on Workflow[id={workflow_id}]: {reason}. "
            "Ask for its status or output as before."
        )
        self.workflow_id = workflow_id
        self.epoch = epoch
        self.is_deleted = is_deleted


class LeaseLostError(WorkflowError):
    """A manager could not renew its lease in time: others may have taken its workflows over."""

    def __init__(self) -> None:
        super().__init__(
            "The workflow manager could not renew its lease in time, so others may take its workflows "
            "over. It has stopped; another one takes its place."
        )


class StorageError(WorkflowError):
    """Something is wrong with the storage.

    :ivar key: the object that was concerned, ``""`` where it is the storage as a whole.
    :ivar is_transient: the same call may work a moment later; it has been tried again already.
    """

    def __init__(self, message: str, *, key: str = "", is_transient: bool = False) -> None:
        super().__init__(message)
        self.key = key
        self.is_transient = is_transient


class DataLoadError(StorageError):
    """An object could not be read."""


class CorruptedDataError(DataLoadError):
    """An object is torn, truncated or changed: its size, checksum or form is wrong."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"The stored object {key!r} is corrupted: {what}.", key=key)


class UntrustedDataError(CorruptedDataError):
    """An object lacks the signature of our key; nothing of it is unpickled."""


class DataSaveError(StorageError):
    """An object could not be written."""


class KeyNotFoundError(StorageError, KeyError):
    """There is no object under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no object {key!r} in the storage.", key=key)


def said_by(exc: BaseException) -> str:
    """What an exception says, for people; of one that says nothing its class."""
    return text_of(exc) or type(exc).__qualname__


def text_of(exc: BaseException) -> str:
    """What an exception says, whatever its class does when it is asked: plain ``str``, no error."""
    try:
        return str.__str__(str(exc))  # of a subclass of str, a reader may not have the class
    except BaseException as error:
        return f"<a {type(exc).__qualname__} whose text can't be had: {type(error).__qualname__}>"
