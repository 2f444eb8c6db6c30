"""From what the manager says about an output to the value or the error, on the caller's side."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError

from airflow_provider_rayworkflow.workflow.exceptions import (
    CanceledOutputError,
    FailedOutputError,
    SuspendedOutputError,
    WorkflowCancellationError,
    WorkflowExecutionError,
    WorkflowSuspendedError,
    text_of,
)
from airflow_provider_rayworkflow.workflow.manager.held_workflow import Output
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.worker.task import (
    decode_exception,
    load_result,
    wrapped,
)


class Reply:
    """A result on its way from the manager: a caller gets the value itself from Ray.

    So the manager never loads a value, and no process has to stand in between.
    """

    def __init__(self, uri: str, workflow_id: str, result: Result) -> None:
        self._uri = uri
        self._workflow_id = workflow_id
        self._result = result

    def __reduce__(self) -> Any:
        return _load, (self._uri, self._workflow_id, self._result)


def reply(uri: str, output: Output, *, was_waiting: bool) -> Reply:
    """What the manager returns for an output: ``ray.get`` gives the caller the value itself.

    :param was_waiting: False for a caller that asks about a workflow that ended long ago.
    :raises WorkflowExecutionError: when it failed; ``__cause__`` is the task's exception where the
        caller unpickles it.
    :raises WorkflowCancellationError: when it was canceled.
    :raises WorkflowSuspendedError: when it was suspended.
    """
    if output.result is None:
        raise _error(output, _PickledCause(output), was_waiting=was_waiting)
    return Reply(uri, output.workflow_id, output.result)


def _load(uri: str, workflow_id: str, result: Result) -> Any:
    if result.ref is not None:
        try:
            return wrapped(result.form, ray.get(result.ref))
        except RayError:
            if result.blob is None:
                raise
    return load_result(store_at(uri), result, workflow_id=workflow_id)


def _error(output: Output, cause: BaseException, *, was_waiting: bool) -> Exception:
    workflow_id = output.workflow_id
    if (failure := output.failure) is not None:
        kind = WorkflowExecutionError if was_waiting else FailedOutputError
        error = kind(
            workflow_id,
            task_id=failure.task_id or None,
            reason=str(failure),
            task_traceback=failure.traceback,
        )
        error.__cause__ = cause
        return error
    if output.status is WorkflowStatus.CANCELED:
        kind_canceled = WorkflowCancellationError if was_waiting else CanceledOutputError
        return kind_canceled(workflow_id)
    kind_suspended = WorkflowSuspendedError if was_waiting else SuspendedOutputError
    return kind_suspended(workflow_id)


class _PickledCause(Exception):
    """The exception of a task, while it is in a process that must not unpickle it."""

    def __init__(self, output: Output) -> None:
        super().__init__(output.failure and output.failure.message)
        self._output = output

    def __reduce__(self) -> Any:
        return _cause, (self._output,)


def _cause(output: Output) -> BaseException:
    failure = output.failure
    text = str(failure) if failure else ""
    if not output.exception:
        return RuntimeError(text)
    try:
        return decode_exception(output.exception)
    except BaseException as exc:  # the user's classes may be missing here, or do anything
        return RuntimeError(f"{text} (it can't be unpickled here: {text_of(exc)})")
