"""Storages with many workflows: such as really ran, or what the package reads of them.

As a program it fills a storage (``fill``), fills it up after measurements (``renew``), or holds workflows that run in
it until its input ends (``hold``). Each is a process of its own: what it keeps in memory, and the clock of its
manager, concern no measurement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.tries.identity import Origin, TaskInstanceKey, derive_workflow_id
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import (
    ORIGIN_KEY,
    JsonOutput,
    StatusRecord,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, local_folder, open_store
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put, buffers
from airflow_provider_rayworkflow.workflow.storage.change_notes import is_visitor
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import SortedRows
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs, LeftLogTimes
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_put

_ROOT = Path(__file__).parent.parent
_DAY_S = 86_400.0
#: Over how long the workflows began that are stored.
SPAN_S = 3 * 365 * _DAY_S
DAGS = 300
#: How many workflows have changed that the index does not have yet, while workflows are held.
UNTAKEN = 100
_AT_ONCE = 64
#: The DAGs of what ran before all that is stored, and of what is begun while calls are measured.
EARLIER = "dag_earlier"
SUBMITTED = "dag_submitted"
_WAITING = "dag_waiting"
_SUSPENDED = "dag_suspended"
_SHORT = "dag_short"
_MEASURED = (_WAITING, _SUSPENDED, _SHORT, SUBMITTED)
_LONG_S = 1e6


# ---- what is generated


def stored_record(number: int, total: int, *, now: float) -> StatusRecord:
    """One of many workflows of some hundred DAGs; the last number began just now, the first three years ago.

    97 % are SUCCESSFUL, 2 % FAILED, 1 % CANCELED.
    """
    created_at = now - SPAN_S * (total - number) / total
    chance = zlib.crc32(b"%d" % number) % 100
    status = WorkflowStatus.SUCCESSFUL
    failure = output = None
    if chance >= 99:
        status = WorkflowStatus.CANCELED
    elif chance >= 97:
        status = WorkflowStatus.FAILED
        failure = TaskFailure(
            task_id="load", type="builtins.ValueError", message="no rows", traceback=_TRACEBACK
        )
    else:
        output = JsonOutput(value={"rows": number})
    key = task_instance(f"dag_{number % DAGS:03d}", created_at)
    return StatusRecord(
        workflow_id=derive_workflow_id(key),
        status=status,
        epoch=1,
        number=1,
        manager_id=f"{number % 7:032x}",
        created_at=created_at,
        started_at=created_at + 0.1,
        ended_at=created_at + 60.0,
        user_metadata=metadata(key),
        tasks_total=5,
        tasks_done=5,
        failure=failure,
        output=output,
    )


def task_instance(dag_id: str, at: float) -> TaskInstanceKey:
    run_id = f"scheduled__{datetime.fromtimestamp(at, UTC).isoformat()}"
    return TaskInstanceKey(dag_id=dag_id, task_id="run_workflow", run_id=run_id)


def metadata(key: TaskInstanceKey) -> dict[str, Any]:
    """What a workflow has that a task instance of Airflow starts."""
    run_after = key.run_id.partition("__")[2]
    origin = Origin(key=key, run_after=run_after, life=f"{0:032x}", max_tries=1, inputs="")
    return {ORIGIN_KEY: origin.to_metadata()}


_TRACEBACK = "Traceback (most recent call last):\n" + 8 * (
    '  File "/opt/airflow/dags/pipelines.py", line 17, in load\n    rows = read(source)\n'
)


def generate(uri: str, number: int, *, now: float, filer: str = "") -> None:
    """Write the status document of each workflow, and an index that has all of them.

    :param filer: of SeaweedFS, the same folder without S3: an HTTP address, ``""`` for none.
    """
    store = WorkflowStore(open_store(uri))
    store.bytes.check_writable()

    def puts(rows: SortedRows) -> Iterator[Put]:
        for one in range(number):
            record = stored_record(one, number, now=now)
            rows.add(IndexRow.of(record, quote_id(record.workflow_id)))
            yield status_put(record)

    folder = local_folder(uri)
    with SortedRows() as rows:
        if folder is not None:
            _write_files(folder, puts(rows))
        else:
            _write_objects(filer, puts(rows))
        store.index.rebuild(rows.items())


def _write_files(folder: str, puts: Iterator[Put]) -> None:
    """Write new files without a sync."""
    os.makedirs(f"{folder}/v1/status", exist_ok=True)
    for put in puts:
        path = f"{folder}/{put.key}"
        os.mkdir(path.rpartition("/")[0])
        with open(path, "xb", buffering=0) as file:
            file.write(b"".join(buffers(put.data)))


def _write_objects(filer: str, puts: Iterator[Put]) -> None:
    """Write objects past the S3 server, which takes thrice the time."""
    address = urlsplit(filer)
    own = threading.local()

    def write(put: Put) -> None:
        if not hasattr(own, "connection"):
            own.connection = HTTPConnection(address.netloc)
        body = b"".join(buffers(put.data))
        own.connection.request("PUT", f"{address.path}/{quote(put.key)}", body)
        answer = own.connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise OSError(f"{put.key} was not written: {answer.status} {answer.reason}")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        while batch := [*islice(puts, 1000)]:
            list(threads.map(write, batch))


# ---- what really runs


@ray.remote
def double(number: int) -> int:
    return 2 * number


@ray.remote
def load(number: int) -> int:
    raise ValueError("no rows")


def run_stored(uri: str, number: int, *, now: float) -> None:
    """Really run what :func:`generate` makes: the same ids and statuses, of one task each, about the same times."""
    began, done = now - SPAN_S, count()
    step = SPAN_S / number
    passed = [began]  # it is later with each that is done
    make = partial(Manager, clock=lambda: passed[0], elapsed=_standing)

    def run(one: int) -> None:
        record = stored_record(one, number, now=now)
        if record.status is WorkflowStatus.CANCELED:
            workflow_id = sleep_on(key_of(record))
            workflow.cancel(workflow_id)
        elif record.status is WorkflowStatus.FAILED:
            with suppress(WorkflowExecutionError):
                run_one(load.bind(one), key_of(record))
        else:
            run_one(double.bind(one), key_of(record))
        passed[0] = began + step * (1 + next(done))

    with InProcessManager(open_store(uri), make_manager=make).running():
        _each(number, run)


def _standing() -> float:
    """The clock of a lease that does not end, however busy the machine is: nothing else wants it."""
    return 0.0


def key_of(record: StatusRecord) -> TaskInstanceKey:
    origin = Origin.from_metadata(record.user_metadata)
    assert origin is not None
    return origin.key


def run_earlier(uri: str, number: int, *, now: float) -> None:
    """Run workflows of two tasks with a manager whose clock stands before all that is stored."""
    began = now - SPAN_S - 30 * _DAY_S
    seconds = count()
    make = partial(Manager, clock=lambda: began + next(seconds), elapsed=_standing)
    with InProcessManager(open_store(uri), make_manager=make).running():
        _each(number, lambda one: _run_two(task_instance(EARLIER, began + one)))


def _run_two(key: TaskInstanceKey) -> None:
    run_one(double.bind(double.bind(1)), key)


def run_one(graph: Any, key: TaskInstanceKey) -> None:
    """Run a workflow to its end."""
    workflow.run(graph, workflow_id=derive_workflow_id(key), metadata=metadata(key))


def sleep_on(key: TaskInstanceKey) -> str:
    """Start a workflow that waits; it is stored when this returns. Gives its id."""
    workflow_id = derive_workflow_id(key)
    workflow.run_async(workflow.sleep(_LONG_S), workflow_id=workflow_id, metadata=metadata(key))
    return workflow_id


def _each(number: int, do: Callable[[int], object]) -> list[Any]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, range(number)))


@contextmanager
def holding(uri: str, *, watched: int, resumable: int) -> Iterator[dict[str, list[str]]]:
    """While this lasts, workflows run, and some can be resumed; gives their ids.

    Their manager has come to rest, and has then made some changes that the index does not have.
    """
    intervals = Intervals(index_s=0.5, left_logs_s=0.5)
    make = partial(Manager, intervals=intervals)
    with InProcessManager(open_store(uri), make_manager=make).running():
        found = _begin(uri, watched, resumable)
        object.__setattr__(intervals, "index_s", _LONG_S)  # the manager reads it anew each time
        _each(UNTAKEN, lambda one: _run_two(task_instance(_SHORT, time.time() + one)))
        time.sleep(1.0)  # the change log is written a moment later
        yield found


def _begin(uri: str, watched: int, resumable: int) -> dict[str, list[str]]:
    now = time.time()
    running = _each(watched, lambda one: sleep_on(task_instance(_WAITING, now + one)))
    suspended = _each(resumable, lambda one: sleep_on(task_instance(_SUSPENDED, now + one)))
    for workflow_id in suspended:
        workflow.suspend(workflow_id)
    store = WorkflowStore(open_store(uri))
    while not _is_at_rest(store):
        time.sleep(0.2)
    return {"running": running, "resumable": suspended}


def _is_at_rest(store: WorkflowStore) -> bool:
    """True if the index has what all managers have changed."""
    logs = [store.changes.read(writer) for writer in store.changes.writers()]
    versions = {log.version for log in logs if not is_visitor(log.writer)}
    return versions == {store.index.last_version()} and not any(log.untaken for log in logs)


def renew(uri: str, number: int) -> None:
    """After measurements: delete what they have begun, and let there be as many earlier workflows again."""
    with InProcessManager(open_store(uri)).running():
        left = [found for dag_id in _MEASURED for found, _ in workflow.iter_all(dag_id=dag_id)]
        _each(len(left), lambda one: workflow.delete(left[one]))
        earlier = len(workflow.list_all(dag_id=EARLIER))
    if earlier < number:
        run_earlier(uri, number - earlier, now=time.time())


# ---- the processes


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What a storage is filled with.

    :ivar stored: how many workflows.
    :ivar have_run: all of them: :func:`run_stored`; otherwise they are generated.
    :ivar earlier: how many ran before them: :func:`run_earlier`.
    :ivar filer: see :func:`generate`.
    """

    stored: int
    have_run: bool
    earlier: int
    filer: str = ""


def fill(uri: str, filling: Filling) -> None:
    """Fill an empty storage, in a process of its own."""
    _end(_program("fill", uri, json.dumps(asdict(filling))))


def fill_again(uri: str, filling: Filling) -> None:
    """Bring a storage in which calls were measured back to what :func:`fill` has made of it: :func:`renew`."""
    _end(_program("renew", uri, str(filling.earlier)))


@contextmanager
def held(uri: str, *, watched: int, resumable: int) -> Iterator[Callable[[], dict[str, list[str]]]]:
    """While this lasts, another process holds workflows: :func:`holding`. Gives what waits for their ids."""
    process = _program("hold", uri, str(watched), str(resumable))
    assert process.stdout is not None
    output = process.stdout
    try:
        yield lambda: json.loads(output.readline())
    finally:
        process.kill()  # what it has begun is deleted before it is measured again
        process.communicate()


def _program(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.stored_workflows", *arguments]
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path},
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} has failed")


def main(what: str, uri: str, *arguments: str) -> None:
    if what == "hold":
        watched, resumable = map(int, arguments)
        with holding(uri, watched=watched, resumable=resumable) as found:
            print(json.dumps(found), flush=True)
            sys.stdin.read()
        return
    # After a power cut all is filled anew, so nothing waits for the disk.
    with mock.patch.object(os, "fsync"):
        if what == "fill":
            _fill(uri, Filling(**json.loads(arguments[0])))
        else:
            renew(uri, int(arguments[0]))
        _leave(WorkflowStore(open_store(uri)))
    if local_folder(uri) is not None:
        os.sync()  # the disk is at rest when calls are measured


def _leave(store: WorkflowStore) -> None:
    """Nothing runs in it: delete what managers leave for some time, which would cost each page a read."""
    left = LeftLogs(store, times=LeftLogTimes(hints_s=0.0))
    left.take_over(time.time())
    for manager_id in store.leases.list_names():
        store.leases.delete(manager_id)


def _fill(uri: str, filling: Filling) -> None:
    now = time.time()
    if filling.have_run:
        run_stored(uri, filling.stored, now=now)
    else:
        generate(uri, filling.stored, now=now, filer=filling.filer)
    run_earlier(uri, filling.earlier, now=now)


if __name__ == "__main__":
    main(*sys.argv[1:])
