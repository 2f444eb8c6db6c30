"""One workflow task on a worker: its inputs loaded before, its value stored after.

A task's exception comes back as data. So whatever exception Ray itself reports is a failure of
the system, not of the task.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

from ray.exceptions import RayTaskError

from airflow_provider_rayworkflow.workflow.authoring.map_result import LoadResult, MapResult
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    StorageError,
    WorkflowExecutionError,
    WorkflowTaskTimeoutError,
    text_of,
)
from airflow_provider_rayworkflow.workflow.execution import context as context
from airflow_provider_rayworkflow.workflow.execution.trace_context import join, joining
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.codec import Encoded, decode, encode, json_output
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Form,
    JsonOutput,
    Result,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.stored_map import StoredMap
from airflow_provider_rayworkflow.workflow.runtime.graphs import functions
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.runtime.graphs.inputs import load_call
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import is_graph
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling, put
from airflow_provider_rayworkflow.workflow.runtime.worker import map_values
from airflow_provider_rayworkflow.workflow.runtime.worker.manager_calls import Ask
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import NODE
from airflow_provider_rayworkflow.workflow.runtime.worker.services import Services
from airflow_provider_rayworkflow.workflow.runtime.worker.storable import encode_for
from airflow_provider_rayworkflow.workflow.runtime.worker.timeouts import time_limit
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Continued,
    InputsLost,
    Lost,
    Raised,
    Returned,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

log = get_logger(__name__)

#: Larger values get an object of their own and go from worker to worker by reference.
INLINE_BYTES = 32 * 1024
# What stands at the top of each traceback and is not the author's.
_OUR_MODULES = frozenset({__name__, f"{__package__}.waits"})

#: What a function gave: a value, or an exception of any class, which no future could hold.
Given = tuple[Any, BaseException | None]


def log_begin(run: TaskRun) -> None:
    """Say that a task begins."""
    log.info("Task status [RUNNING]\t[%s@%s]", run.workflow_id, run.task_id)


def run_task(
    store: WorkflowStore,
    run: TaskRun,
    results: Sequence[Result],
    values: Sequence[Any],
    ask: Ask | None = None,
) -> AttemptEnd:
    """Run a task here.

    :param results: that it takes, in the place of its ``inputs``. One that comes by reference has
        its position among ``values`` in place of the reference.
    :param ask: calls the manager; by default that of the cluster.
    """
    attempt = TaskCall(store, run, ask)
    if (lost := attempt.load(results, values)) is not None:
        return lost
    with attempt.current():
        return attempt.ended(*attempt.call())


class TaskCall:
    """One attempt of a task, in the steps that :func:`run_task` takes."""

    def __init__(self, store: WorkflowStore, run: TaskRun, ask: Ask | None = None) -> None:
        self._store = store
        self._run = run
        self._inputs: list[Any] = []
        self._retryable: tuple[type[BaseException], ...] | None = None
        self._started_at = 0.0
        self._lost_reads: list[StorageError] = []
        self._services = Services(store, run, ask)
        self._context = context.WorkflowContext(
            workflow_id=run.workflow_id,
            task_id=run.task_id,
            attempt=run.attempt,
            epoch=run.epoch,
            services=self._services,
        )

    def load(self, results: Sequence[Result], values: Sequence[Any]) -> AttemptEnd | None:
        """Load what it takes; returns how it ended if that fails."""
        if self._run.gathers:
            self._inputs = list(results)
            return None
        try:
            lost, self._inputs = _load_inputs(self._load_part, results, values)
        except DataLoadError as exc:
            return _lost_by(self._run, exc)
        return lost

    def current(self) -> AbstractContextManager[None]:
        """While this lasts, it is the task that :func:`get_context` tells of."""
        return self._in_trace() if self._run.traceparent else context.running(self._context)

    @contextmanager
    def _in_trace(self) -> Iterator[None]:
        with context.running(self._context), joining(self._run.traceparent):
            yield

    def enter(self) -> None:
        """Make it the current task for good, in a :class:`contextvars.Context` of its own."""
        context.enter(self._context)
        if self._run.traceparent:
            join(self._run.traceparent)

    def call(self) -> Given:
        """Call its function."""
        self._started_at = time.time()
        try:
            self._services.begin()
            function = functions.load(self._run.function)
            args, kwargs, self._retryable = load_call(
                self._run.arguments, self._inputs, self._load_part
            )
            self._services.function_begins()
            with time_limit(self._run):
                value = function(*args, **kwargs)
                return (asyncio.run(value) if inspect.iscoroutine(value) else value), None
        except BaseException as exc:
            return None, exc

    def _load_part(self, result: Result) -> Any:
        return load_result(self._store, result, self._lost_reads.append)

    def ended(self, value: Any, error: BaseException | None) -> AttemptEnd:
        """How it ends by what its function gave.

        Not called while the error is handled: it would be the context of errors in between, and
        whatever shows those, as ``logging`` does when a handler fails, would call its methods.
        """
        self._services.close()
        if error is not None:
            return self.raised(error)
        times = self._times()
        match self._encoded(value, times):
            case Encoded() as encoded:
                return self.returned(value, encoded, times)
            case BaseException() as unstorable:
                return self.raised(unstorable)
            case end:
                return end

    def _encoded(self, value: Any, times: TaskTimes) -> Encoded | Continued | Lost | BaseException:
        """A value in its stored form, or how the attempt ends without one, or why it has none."""
        run = self._run
        try:
            if type(value).__module__ == "builtins":  # no graph, and no map
                return encode_for(run.task_id, value)
            if is_graph(value):
                graph = encode_graph(value).to_bytes()
                return Continued(graph=graph, times=times, has_saved=self._services.has_saved)
            if isinstance(value, (StoredMap, MapResult)):
                return map_values.as_stored(value)
            return encode_for(run.task_id, value)
        except MemoryError as exc:
            return Lost(failure=_system_failure(run, exc, Cause.OUT_OF_MEMORY))
        except BaseException as exc:
            return exc

    def returned(self, value: Any, encoded: Encoded, times: TaskTimes) -> AttemptEnd:
        """How it ends by a value of its function, which is stored."""
        run = self._run
        try:
            return Returned(
                result=_store(self._store, run, value, encoded),
                times=times,
                json_output=self._as_json(value) if run.wants_json else None,
                has_saved=self._services.has_saved,
            )
        except StorageError as exc:
            return _lost_by(run, exc)

    def _as_json(self, value: Any) -> JsonOutput:
        if isinstance(value, (StoredMap, MapResult)):
            return map_values.as_json(value, self._load_part)
        return json_output(value)

    def raised(self, exc: BaseException) -> AttemptEnd:
        """How it ends by an exception, of whatever class."""
        if type(exc) is SystemExit and hasattr(exc, "ray_terminate_msg"):
            raise exc  # Ray ends this process, and tells why: no doing of the task
        if self._run.is_event and _is_lack(exc):
            return Lost(failure=_system_failure(self._run, exc))  # the process is not its own
        if self._services.has_raised(exc):
            return Lost(failure=_system_failure(self._run, exc), retryable=False)
        if any(exc is lost for lost in self._lost_reads):
            return Lost(failure=_system_failure(self._run, exc), retryable=False)
        if self._services.leaves_node:
            return Lost(failure=_system_failure(self._run, exc, Cause.NODE_LOST))
        failure = describe(self._run.task_id, exc)
        return Raised(
            failure=failure,
            exception=encode_exception(exc, failure),
            retryable=not (failure.asks_to_skip or failure.asks_not_to_retry)
            and _is_one_of(exc, self._retryable),
            times=self._times(),
            has_saved=self._services.has_saved,
        )

    def _times(self) -> TaskTimes:
        return TaskTimes(
            started_at=self._started_at,
            ended_at=time.time(),
            attempt=self._run.attempt,
            node=NODE,
        )


def _is_lack(exc: BaseException) -> bool:
    """True if the machine or the process has not got what was asked for: files, memory, threads."""
    if isinstance(exc, OSError):
        return exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)
    no_thread = type(exc) is RuntimeError and text_of(exc) == "can't start new thread"
    return no_thread or isinstance(exc, MemoryError)


def _is_one_of(exc: BaseException, kinds: tuple[type[BaseException], ...] | None) -> bool:
    try:
        return kinds is None or isinstance(exc, kinds)
    except BaseException:  # classes may have their own idea of what is one of them
        return False


def _lost_by(run: TaskRun, exc: StorageError) -> Lost:
    return Lost(failure=_system_failure(run, exc), retryable=False)


def _system_failure(run: TaskRun, exc: BaseException, cause: Cause = Cause.SYSTEM) -> TaskFailure:
    return replace(describe(run.task_id, exc), cause=cause)


def _store(store: WorkflowStore, run: TaskRun, value: Any, encoded: Encoded) -> Result:
    if encoded.size <= INLINE_BYTES:
        return Result(encoding=encoded.encoding, inline=b"".join(encoded.parts))
    blob = None
    is_map = isinstance(value, (StoredMap, MapResult))
    if run.checkpoint or is_map:
        blob = store.values.write(
            run.workflow_id,
            epoch=run.epoch,
            task_id=run.task_id,
            attempt=run.attempt,
            parts=encoded.parts,
        )
    if is_map:  # no reader takes it from memory
        return map_values.with_stamp(Result(encoding=encoded.encoding, blob=blob), value)
    return Result(encoding=encoded.encoding, blob=blob, ref=put(value))


def _load_inputs(
    load: LoadResult, results: Sequence[Result], values: Sequence[Any]
) -> tuple[InputsLost | None, list[Any]]:
    """What a task takes, or which of that is gone or damaged.

    :param load: loads a stored result.
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
                inputs.append(load(result))
        except StorageError as exc:
            if isinstance(exc, DataLoadError) and not isinstance(exc, CorruptedDataError):
                raise
            lost.append(position)
            reasons.append(str(exc))
            inputs.append(None)
    if not lost:
        return None, inputs
    return InputsLost(positions=tuple(lost), reason=" ".join(reasons)), []


def load_result(
    store: WorkflowStore,
    result: Result,
    on_error: map_values.OnError | None = None,
    workflow_id: str = "",
) -> Any:
    """The value of a result, from its bytes or from the storage.

    :param on_error: told errors of the storage when the result of a map is read later.
    :param workflow_id: the workflow whose output it is, for a caller.
    :raises StorageError: when it is missing or damaged.
    """
    if result.encoding is Encoding.MAP:
        found = map_values.restored(store, result, load_result, on_error, workflow_id)
        return wrapped(result.form, found)
    if result.inline is not None:
        return wrapped(result.form, decode(result.encoding, result.inline))
    if result.blob is not None:
        data = store.values.read(result.blob)
        return wrapped(result.form, decode(result.encoding, data))
    raise StorageError("A result was held in the memory of a worker that is gone.")


def wrapped(form: Form, value: Any) -> Any:
    """What a stored value means to those who use the task's result."""
    if form is Form.CAUGHT_VALUE:
        return value, None
    if form is Form.CAUGHT_ERROR:
        return None, value
    return value


def describe(task_id: str, exc: BaseException) -> TaskFailure:
    """An exception as text, without the frames of this package at the top."""
    kind = type(exc)
    name, message = _name_of(kind), text_of(exc)
    return TaskFailure(
        task_id=task_id,
        type=name,
        message=message,
        traceback=_traceback(exc, f"{name}: {message}"),
        cause=Cause.TIMEOUT if kind is WorkflowTaskTimeoutError else Cause.APPLICATION,
        bases=tuple(map(_name_of, type(_original(exc)).__mro__)),
    )


def _traceback(exc: BaseException, last_line: str) -> str:
    """As Python prints it.

    :param last_line: stands for an exception that can't be printed.
    """
    # Not what its class may make of it.
    own: TracebackType | None = vars(BaseException)["__traceback__"].__get__(exc)
    trace = own
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OUR_MODULES:
        trace = trace.tb_next
    trace = trace or own
    try:
        lines = traceback.format_exception(type(exc), exc, trace)
    except BaseException:
        lines = [*traceback.format_tb(trace), last_line, "\n"]
    return "".join(lines)


_MAX_WRAPPINGS = 20


def _name_of(kind: type) -> str:
    name = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"


def _original(exc: BaseException) -> BaseException:
    """What Ray, or a workflow that the task ran, has wrapped on its way here."""
    for _ in range(_MAX_WRAPPINGS):
        if isinstance(exc, RayTaskError):
            cause = exc.cause
        elif isinstance(exc, WorkflowExecutionError):
            cause = exc.__cause__
        else:
            break
        if not isinstance(cause, BaseException):
            break
        exc = cause
    return exc


def encode_exception(exc: BaseException, failure: TaskFailure) -> bytes:
    """An exception with its causes as bytes; one of its text where it can't be pickled."""
    refs = RefPickling()
    try:
        data = b"".join(encode(_Pickled(exc), override=refs).parts)
        with refs.reading_back():
            decode_exception(data)  # many exceptions can be pickled and not be unpickled
    except BaseException:
        stand_in = RuntimeError(str(failure))
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
        return _with_cause, (self._exc, None if cause is None else _Pickled(cause))


def _with_cause(exc: BaseException, cause: BaseException | None) -> BaseException:
    exc.__cause__ = cause
    return exc
