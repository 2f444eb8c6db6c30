"""Storages with many workflows: some that really ran, and what the package reads of many others.

As a program it fills a storage (``fill``), or holds workflows that run in it until its input ends (``hold``). Each
is a process of its own: what it keeps in memory, and the clock of its manager, concern no measurement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.tries.identity import Origin, TaskInstanceKey, derive_workflow_id
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
from airflow_provider_rayworkflow.workflow.storage.statuses import status_put

_ROOT = Path(__file__).parent.parent
_DAY_S = 86_400.0
#: Over how long the workflows began that are stored.
SPAN_S = 3 * 365 * _DAY_S
DAGS = 300
#: How many workflows have changed that the index does not have yet, while workflows are held.
UNTAKEN = 100
_AT_ONCE = 32
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


def generate(uri: str, number: int, *, now: float) -> None:
    """Write the status document of each workflow, and an index that has all of them."""
    store = WorkflowStore(open_store(uri))
    store.bytes.check_writable()

    def puts(rows: SortedRows) -> Iterator[Put]:
        for one in range(number):
            record = stored_record(one, number, now=now)
            rows.add(IndexRow.of(record, quote_id(record.workflow_id)))
            yield status_put(record)

    with SortedRows() as rows:
        _write(uri, store, puts(rows))
        store.index.rebuild(rows.items())


def _write(uri: str, store: WorkflowStore, puts: Iterator[Put]) -> None:
    """Write new objects quickly: files without a sync, objects many at once."""
    folder = local_folder(uri)
    if folder is not None:
        os.makedirs(f"{folder}/v1/status", exist_ok=True)
        for put in puts:
            path = f"{folder}/{put.key}"
            os.mkdir(path.rpartition("/")[0])
            with open(path, "xb", buffering=0) as file:
                file.write(b"".join(buffers(put.data)))
        return
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        while batch := [*islice(puts, 1000)]:
            list(threads.map(lambda put: store.bytes.put(put.key, put.data), batch))


# ---- what really runs


@ray.remote
def double(number: int) -> int:
    return 2 * number


def run_earlier(uri: str, number: int, *, now: float) -> None:
    """Run workflows with a manager whose clock stands before all that is generated."""
    began = now - SPAN_S - 30 * _DAY_S
    seconds = count()
    make = partial(Manager, clock=lambda: began + next(seconds))
    with InProcessManager(open_store(uri), make_manager=make).running():
        _each(number, lambda one: run_one(task_instance("dag_earlier", began + one)))


def run_one(key: TaskInstanceKey) -> None:
    """Run a workflow of two tasks to its end."""
    graph = double.bind(double.bind(1))
    workflow.run(graph, workflow_id=derive_workflow_id(key), metadata=metadata(key))


def sleep_on(key: TaskInstanceKey) -> str:
    """Start a workflow that waits; it is stored when this returns. Gives its id."""
    workflow_id = derive_workflow_id(key)
    workflow.run_async(workflow.sleep(_LONG_S), workflow_id=workflow_id, metadata=metadata(key))
    return workflow_id


def _each(number: int, do: Callable[[int], object]) -> list[Any]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, range(number)))


def hold(uri: str, *, watched: int, resumable: int) -> dict[str, list[str]]:
    """Begin workflows that run on, and some that can be resumed; gives their ids.

    Then the manager comes to rest, and makes some changes that the index does not have for a while.
    """
    now = time.time()
    running = _each(watched, lambda one: sleep_on(task_instance("dag_waiting", now + one)))
    suspended = _each(resumable, lambda one: sleep_on(task_instance("dag_suspended", now + one)))
    for workflow_id in suspended:
        workflow.suspend(workflow_id)
    store = WorkflowStore(open_store(uri))
    while not _is_at_rest(store):
        time.sleep(0.2)
    _each(UNTAKEN, lambda one: run_one(task_instance("dag_short", now + one)))
    time.sleep(1.0)  # the change log is written a moment later
    return {"running": running, "resumable": suspended}


def _is_at_rest(store: WorkflowStore) -> bool:
    """True if the index has what all managers have changed."""
    logs = [store.changes.read(writer) for writer in store.changes.writers()]
    versions = {log.version for log in logs if not is_visitor(log.writer)}
    return versions == {store.index.last_version()} and not any(log.untaken for log in logs)


def _manager(watched: int) -> Callable[..., Manager]:
    """One that comes to rest soon; then the reads are measured before the index takes the next changes."""
    index_s = 30.0 if watched >= 1_000 else 10.0
    return partial(Manager, intervals=Intervals(index_s=index_s, left_logs_s=1.0))


# ---- the processes


def fill(uri: str, *, generated: int, ran: int) -> None:
    """Fill a storage: :func:`run_earlier` and :func:`generate`, in a process of its own."""
    _program("fill", uri, generated, ran).communicate()


@contextmanager
def held(uri: str, *, watched: int, resumable: int) -> Iterator[dict[str, list[str]]]:
    """While this lasts, another process holds workflows: :func:`hold`."""
    process = _program("hold", uri, watched, resumable)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()  # what it has is thrown away anyhow
        process.communicate()


def _program(what: str, uri: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.stored_workflows", what, uri, *map(str, numbers)]
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path},
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def main(what: str, uri: str, first: str, second: str) -> None:
    now = time.time()
    if what == "fill":
        generate(uri, int(first), now=now)
        run_earlier(uri, int(second), now=now)
        return
    make = _manager(watched=int(first))
    with InProcessManager(open_store(uri), make_manager=make).running():
        print(json.dumps(hold(uri, watched=int(first), resumable=int(second))), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
