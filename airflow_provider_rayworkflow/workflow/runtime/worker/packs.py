"""What runs on a Ray worker as one Ray task: one workflow task, or several short ones."""

from __future__ import annotations

import functools
import gc
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.log_line import TaskLines
from airflow_provider_rayworkflow.workflow.model.records import Form, Result
from airflow_provider_rayworkflow.workflow.runtime.graphs import functions
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of
from airflow_provider_rayworkflow.workflow.runtime.names import at_location
from airflow_provider_rayworkflow.workflow.runtime.service.unpack import enter_archives
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import reported
from airflow_provider_rayworkflow.workflow.runtime.worker.task import log_begin, run_task
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Earlier,
    NotBegun,
    Returned,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.scheduling.packing import BUDGET_S
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

log = get_logger(__name__)

#: How a task ended, and after how many seconds.
Done = tuple[AttemptEnd, float]

#: How tasks ended as it travels: pickled, the references among their results, and what the tasks
#: printed and logged, pickled (``b""`` for nothing).
Packed = tuple[bytes, list[Any], bytes]

#: A Ray task that takes longer tells the manager, which lets others run what it has not begun.
HAND_BACK_S = 0.05


def execute_pack(payload: bytes, *values: Any) -> Packed:
    """Run tasks one after the other, as long as the budget lasts.

    Returns how they ended, in their order, for :func:`load_done`; those that are missing have not
    begun.

    :param payload: the pickled storage URI, the number under which the manager knows this Ray task
        (-1: nothing waits behind it), and the runs.
    :param values: what the references among the inputs refer to.
    """
    _prepare_process()
    uri, number, runs = pickle.loads(payload)
    store = store_at(uri)
    enter_archives(store)
    pack = _Pack(store, runs, list(values))
    with at_location(uri):
        pack.prepare()
        if number < 0:
            return dump_done(pack.execute(), pack.take_lines())
        with _watched(pack, number, uri):
            return dump_done(pack.execute(), pack.take_lines())


def dump_done(done: Sequence[Done], lines: Sequence[TaskLines]) -> Packed:
    """How tasks ended, without what Ray does for each object that it pickles itself.

    :param lines: what they printed and logged, as far as it has not been sent.
    """
    refs: list[Any] = []
    plain = []
    for completion, seconds in done:
        if isinstance(completion, Returned) and completion.result.ref is not None:
            refs.append(completion.result.ref)
            completion = _with_ref(completion, len(refs) - 1)
        plain.append((completion, seconds))
    printed = pickle.dumps(lines, protocol=5) if lines else b""
    return pickle.dumps(plain, protocol=5), refs, printed


def load_done(packed: Packed) -> list[Done]:
    """How the tasks ended for which :func:`dump_done` was called."""
    data, refs, _ = packed
    done: list[Done] = pickle.loads(data)
    if not refs:
        return done
    return [
        (_with_ref(completion, refs[completion.result.ref]), seconds)
        if isinstance(completion, Returned) and completion.result.ref is not None
        else (completion, seconds)
        for completion, seconds in done
    ]


def load_lines(packed: Packed) -> Sequence[TaskLines]:
    """What they printed and logged."""
    lines: Sequence[TaskLines] = pickle.loads(packed[2]) if packed[2] else ()
    return lines


def _with_ref(returned: Returned, ref: Any) -> Returned:
    return returned._replace(result=returned.result._replace(ref=ref))


@functools.cache
def _prepare_process() -> None:
    log_capture.install(descriptors=True)  # first: our own lines go through it, and are left out
    log_to_stderr()
    gc.freeze()  # what is imported stays: to look through it again and again takes 50 ms each


class _Pack:
    """Tasks that share this Ray task.

    :ivar done: how the first ones ended.
    """

    def __init__(self, store: WorkflowStore, runs: Sequence[TaskRun], values: list[Any]) -> None:
        self.done: list[Done] = []
        self._store = store
        self._runs = runs
        self._values = values
        self._results: dict[tuple[str, str], Result] = {}
        self._loaded: bytes | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._lines: list[TaskLines] = []

    def prepare(self) -> None:
        """Do what is done once in a process, and so is no part of how long a function takes."""
        self._load(self._runs[0])

    def execute(self) -> list[Done]:
        """Run them."""
        first, *others = self._runs
        log_capture.label_output("workflow tasks" if others else _label_of(first))
        begun_at = time.perf_counter()
        for run in self._runs:
            is_late = run.batch_size == 1 and time.perf_counter() - begun_at > BUDGET_S
            if self._is_closed or (self.done and is_late):
                break
            done = self._execute(run)
            with self._lock:
                self.done.append(done)
        return self.done

    def close(self) -> list[Done] | None:
        """Begin no other task, and say how those ended that have; None after the last one."""
        with self._lock:
            self._is_closed = True
            return None if len(self.done) == len(self._runs) else list(self.done)

    def take_lines(self) -> list[TaskLines]:
        """What those that have ended printed and logged. Each is given out once."""
        with self._lock:
            lines, self._lines = self._lines, []
            return lines

    def _load(self, run: TaskRun) -> None:
        if run.function is not self._loaded:
            self._loaded = run.function
            with suppress(Exception):  # the task itself will say so
                functions.load(run.function)

    def _execute(self, run: TaskRun) -> Done:
        self._load(run)
        begun_at = time.perf_counter()
        inputs = self._inputs_of(run)
        if inputs is None:
            return NotBegun(), 0.0
        task_log = TaskLog(run)
        is_single = len(self._runs) == 1
        label = "" if is_single else _label_of(run)
        with log_capture.alone(task_log, label), reported(task_log):
            if is_single:  # a line for each short task would take longer than the task
                log_begin(run)
            end = run_task(self._store, run, inputs, self._values)
        if (lines := task_log.rest()) is not None:
            with self._lock:
                self._lines.append(lines)
        if isinstance(end, Returned):
            self._results[run.workflow_id, run.task_id] = _as_result(run, end.result)
        return end, time.perf_counter() - begun_at

    def _inputs_of(self, run: TaskRun) -> list[Result] | None:
        """What it takes; None if a task before it failed or gave a graph."""
        inputs: list[Result] = []
        for given in run.inputs:
            if isinstance(given, Earlier):
                found = self._results.get((run.workflow_id, given.task_id))
                if found is None:
                    return None
                given = found._replace(ref=None) if run.gathers else self._by_position(found)
            inputs.append(given)
        return inputs

    def _by_position(self, result: Result) -> Result:
        if result.ref is None:
            return result
        self._values.append(ray.get(result.ref))
        return result._replace(ref=len(self._values) - 1)


def _label_of(run: TaskRun) -> str:
    return f"{run.workflow_id}@{run.task_id}"


def _as_result(run: TaskRun, result: Result) -> Result:
    return result._replace(form=Form.CAUGHT_VALUE) if run.catches else result


# The pack that runs in this process, with its number, its storage, and when it has to be handed back.
_running: dict[_Pack, tuple[int, str, float]] = {}
_has_begun = threading.Event()


@contextmanager
def _watched(pack: _Pack, number: int, uri: str) -> Iterator[None]:
    """While this lasts, the pack is handed back if that takes long."""
    _start_watch()
    _running[pack] = number, uri, time.monotonic() + HAND_BACK_S
    _has_begun.set()
    try:
        yield
    finally:
        _running.pop(pack, None)


@functools.cache
def _start_watch() -> None:
    # One thread for the process: one for each Ray task takes longer to start than a short task.
    threading.Thread(target=_watch, name="hand-back", daemon=True).start()


def _watch() -> None:
    while True:
        _has_begun.wait()
        _has_begun.clear()
        while _running:
            time.sleep(HAND_BACK_S / 2)
            for pack, (number, uri, due_at) in list(_running.items()):
                if time.monotonic() >= due_at and _running.pop(pack, None) is not None:
                    _hand_back(pack, number, uri)


def _hand_back(pack: _Pack, number: int, uri: str) -> None:
    """Tell the manager that this takes long. In a thread: the task may not come back for hours."""
    done = pack.close()
    if done is None:
        return
    try:
        done_and_lines = dump_done(done, pack.take_lines())
        manager_of(uri).hand_back.remote(number, done_and_lines)
    except Exception as exc:  # they wait a little longer then
        log.warning("What waits behind a long task could not be handed back: %s", said_by(exc))
