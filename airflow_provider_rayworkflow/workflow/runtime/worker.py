"""One workflow task on a worker: its inputs loaded before, its value stored after.

A task's exception comes back as data. So whatever exception Ray itself reports is a failure of
the system, not of the task.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow import workflow_context as context
from airflow_provider_rayworkflow.workflow.codec import Encoded, decode, encode, json_output
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.model import (
    Encoding,
    Form,
    Result,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.runtime import functions
from airflow_provider_rayworkflow.workflow.runtime.dag import encode_dag, is_dag
from airflow_provider_rayworkflow.workflow.runtime.inputs import load_call
from airflow_provider_rayworkflow.workflow.runtime.presence import NODE
from airflow_provider_rayworkflow.workflow.runtime.refs import RefPickling, put
from airflow_provider_rayworkflow.workflow.runtime.timeouts import time_limit
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.task_runs import (
    Completion,
    Continued,
    InputsLost,
    Lost,
    Raised,
    Returned,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.trace_context import joining

log = logging.getLogger(__name__)

#: Larger values get an object of their own and go from worker to worker by reference.
INLINE_BYTES = 32 * 1024
#: The largest value that a task may return, in bytes; by default there is no limit.
MAX_VALUE_VARIABLE = "RAY_WORKFLOW_MAX_VALUE_BYTES"


def log_begin(run: TaskRun) -> None:
    """Say that a task begins."""
    log.info("Task status [RUNNING]\t[%s@%s]", run.workflow_id, run.task_id)


def run_task(
    store: WorkflowStore, run: TaskRun, results: Sequence[Result], values: Sequence[Any]
) -> Completion:
    """Run a task here.

    :param results: that it takes, in the place of its ``inputs``. One that comes by reference has
        its position among ``values`` in place of the reference.
    """
    task_context = context.WorkflowContext(
        workflow_id=run.workflow_id, task_id=run.task_id, attempt=run.attempt, epoch=run.epoch
    )
    try:
        lost, inputs = _load_inputs(store, results, values)
    except DataLoadError as exc:
        return _lost_by(run, exc)
    if lost is not None:
        return lost
    with context.running(task_context), joining(run.traceparent):
        return _execute(store, run, inputs)


def _execute(store: WorkflowStore, run: TaskRun, inputs: list[Any]) -> Completion:
    started_at = time.time()
    retryable: tuple[type[BaseException], ...] | None = None
    try:
        function = functions.load(run.function)
        args, kwargs, retryable = load_call(run.arguments, inputs)
        with time_limit(run):
            value = function(*args, **kwargs)
        ended_at = time.time()
        if is_dag(value):
            return Continued(
                graph=encode_dag(value).to_bytes(),
                times=_times(run, started_at, ended_at),
            )
        encoded = _encode(run, value)
    except (Exception, SystemExit) as exc:
        log.info("Task status [FAILED]\t[%s@%s]", run.workflow_id, run.task_id)
        return _raised(run, exc, retryable, _times(run, started_at, time.time()))
    try:
        return Returned(
            result=_store(store, run, value, encoded),
            times=_times(run, started_at, ended_at),
            json_output=json_output(value) if run.wants_json else None,
        )
    except StorageError as exc:
        return _lost_by(run, exc)


def _lost_by(run: TaskRun, exc: StorageError) -> Lost:
    failure = describe(run.task_id, exc)
    return Lost(failure=TaskFailure(**failure.to_json() | {"system": True}), retryable=False)


def _times(run: TaskRun, started_at: float, ended_at: float) -> TaskTimes:
    return TaskTimes(started_at=started_at, ended_at=ended_at, attempt=run.attempt, node=NODE)


def _encode(run: TaskRun, value: Any) -> Encoded:
    limit = int(os.environ.get(MAX_VALUE_VARIABLE) or 0)
    try:
        encoded = encode(value, override=RefPickling())
        if limit and encoded.size > limit:
            raise ValueError(f"it has {encoded.size} bytes, and {MAX_VALUE_VARIABLE} is {limit}")
        return encoded
    except Exception as exc:
        raise TypeError(
            f"Task[id={run.task_id}] returned a {type(value).__name__} that can't be stored: {exc}. "
            "Return plain data, or where the data is."
        ) from exc


def _store(store: WorkflowStore, run: TaskRun, value: Any, encoded: Encoded) -> Result:
    if encoded.size <= INLINE_BYTES:
        return Result(encoding=encoded.encoding, inline=b"".join(encoded.parts))
    blob = None
    if run.checkpoint:
        blob = store.write_value(
            run.workflow_id,
            epoch=run.epoch,
            task_id=run.task_id,
            attempt=run.attempt,
            parts=encoded.parts,
        )
    return Result(encoding=encoded.encoding, blob=blob, ref=put(value))


def _load_inputs(
    store: WorkflowStore, results: Sequence[Result], values: Sequence[Any]
) -> tuple[InputsLost | None, list[Any]]:
    """What a task takes, or which of that is gone or damaged.

    :raises DataLoadError: when it can't be read, but may be whole: no reason to make it again.
    """
    inputs: list[Any] = []
    lost: list[int] = []
    reasons: list[str] = []
    for position, result in enumerate(results):
        try:
            if result.ref is not None:
                inputs.append(wrapped(result.form, values[result.ref]))
            else:
                inputs.append(load_result(store, result))
        except StorageError as exc:
            if isinstance(exc, DataLoadError) and not isinstance(exc, CorruptedDataError):
                raise
            lost.append(position)
            reasons.append(str(exc))
            inputs.append(None)
    if not lost:
        return None, inputs
    return InputsLost(positions=tuple(lost), reason=" ".join(reasons)), []


def load_result(store: WorkflowStore, result: Result) -> Any:
    """The value of a result, from its bytes or from the storage.

    :raises StorageError: when it is missing or damaged.
    """
    if result.inline is not None:
        return wrapped(result.form, decode(result.encoding, result.inline))
    if result.blob is not None:
        data = store.read_value(result.blob)
        return wrapped(result.form, decode(result.encoding, data))
    raise StorageError("A result was held in the memory of a worker that is gone.")


def wrapped(form: Form, value: Any) -> Any:
    """What a stored value means to those who use the task's result."""
    if form is Form.CAUGHT_VALUE:
        return value, None
    if form is Form.CAUGHT_ERROR:
        return None, value
    return value


def _raised(
    run: TaskRun,
    exc: BaseException,
    retryable: tuple[type[BaseException], ...] | None,
    times: TaskTimes,
) -> Raised:
    failure = describe(run.task_id, exc)
    return Raised(
        failure=failure,
        exception=encode_exception(exc, failure),
        retryable=retryable is None or isinstance(exc, retryable),
        times=times,
    )


def describe(task_id: str, exc: BaseException) -> TaskFailure:
    """An exception as text, without the frames of this package at the top."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next
    kind = type(exc)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return TaskFailure(
        task_id=task_id,
        type=name,
        message=str(exc),
        traceback="".join(traceback.format_exception(kind, exc, trace or exc.__traceback__)),
    )


def encode_exception(exc: BaseException, failure: TaskFailure) -> bytes:
    """An exception with its causes as bytes; one of its text where it can't be pickled."""
    try:
        encoded = encode(_Pickled(exc), override=RefPickling())
        data = b"".join(encoded.parts)
        decode_exception(data)  # many exceptions can be pickled and not be unpickled
    except Exception:
        stand_in = RuntimeError(f"{failure.type}: {failure.message}")
        data = b"".join(encode(_Pickled(stand_in)).parts)
    return data


def decode_exception(data: bytes) -> BaseException:
    """The exception of :func:`encode_exception`, its causes linked again."""
    pickled = decode(Encoding.PICKLE, data)
    if not isinstance(pickled, BaseException):
        raise TypeError(f"{pickled!r:.200} is not an exception")
    return pickled


class _Pickled:
    """An exception on its way through pickle, which forgets ``__cause__``."""

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def __reduce__(self) -> Any:
        cause = self._exc.__cause__
        return _with_cause, (self._exc, cause and _Pickled(cause))


def _with_cause(exc: BaseException, cause: BaseException | None) -> BaseException:
    exc.__cause__ = cause
    return exc
