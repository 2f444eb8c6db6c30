"""From what the manager says about an output to the value or the error, on the caller's side."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError

from airflow_provider_rayworkflow.workflow.exceptions import (
    CanceledOutputError,
    FailedOutputError,
    WorkflowCancellationError,
    WorkflowExecutionError,
    WorkflowSuspendedError,
)
from airflow_provider_rayworkflow.workflow.manager import Output
from airflow_provider_rayworkflow.workflow.runtime.worker import (
    decode_exception,
    load_result,
    store_of,
    wrapped,
)
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore


def value_of(found: tuple[str, Output], *, was_waiting: bool) -> Any:
    """The value of an output in the storage with the given URI. See :func:`load_output`."""
    uri, output = found
    return load_output(store_of(uri), output, was_waiting=was_waiting)


def load_output(store: WorkflowStore, output: Output, *, was_waiting: bool) -> Any:
    """The value of an output.

    :param was_waiting: False for a caller that asks about a workflow that ended long ago.
    :raises WorkflowExecutionError: when it failed; ``__cause__`` is the task's exception.
    :raises WorkflowCancellationError: when it was canceled.
    :raises WorkflowSuspendedError: when it was suspended.
    """
    if output.result is None:
        raise _error(output, was_waiting=was_waiting)
    result = output.result
    if result.ref is not None:
        try:
            return wrapped(result.form, ray.get(result.ref))
        except RayError:
            if result.blob is None:
                raise
    return load_result(store, result)


def _error(output: Output, *, was_waiting: bool) -> Exception:
    workflow_id = output.workflow_id
    if output.failure is not None:
        kind = WorkflowExecutionError if was_waiting else FailedOutputError
        failure = output.failure
        error = kind(
            workflow_id,
            task_id=failure.task_id or None,
            reason=f"{failure.type}: {failure.message}",
            task_traceback=failure.traceback,
        )
        if output.exception:
            try:
                error.__cause__ = decode_exception(output.exception)
            except Exception as exc:  # the user's classes may be missing here
                error.__cause__ = RuntimeError(f"{failure.type}: {failure.message} ({exc})")
        else:
            error.__cause__ = RuntimeError(f"{failure.type}: {failure.message}")
        return error
    if output.status is WorkflowStatus.CANCELED:
        kind_canceled = WorkflowCancellationError if was_waiting else CanceledOutputError
        return kind_canceled(workflow_id)
    return WorkflowSuspendedError(workflow_id)


@ray.remote(num_cpus=0, max_retries=3)
def fetch(found: tuple[str, Output], was_waiting: bool) -> Any:
    """The value in a task of its own: what a reference to an output refers to.

    Ray starts it when the manager's answer is there, so waiting holds no worker.
    """
    return value_of(found, was_waiting=was_waiting)


def failed_reference(error: Exception) -> ray.ObjectRef[Any]:
    """A reference whose ``ray.get`` raises the error."""
    return _raise.remote(error)


@ray.remote(num_cpus=0, max_retries=3)
def _raise(error: Exception) -> Any:
    raise error
