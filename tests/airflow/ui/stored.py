"""Workflows of every kind in one storage, as the pages find them.

Those that have ended were run by a manager in this process; what a test changes or what would not
stay as it is (a running one) is written as a manager would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from sample_records import claim_epoch, lease, status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    FailedAttempt,
    Progress,
    Result,
    RunningTask,
    StatusRecord,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter

FAILED = "ui_flights.daily.2026-11-24"
SUCCESSFUL = "ui_trips.book.2026-11-23"
RUNNING = "ui_flights.daily.2026-11-25"
BIG = "squares of 2,000 numbers"
HOSTILE = """<img src=x onerror="document.title=1">'"&<script>document.title=2</script>/%2F?#x"""
OTHERS = "nobody's"
#: What tasks have printed, one time as a page would like it least.
PRINTED = "27,004 rows of <month 1>\n<img src=x onerror='document.title=3'>"


def origin(dag_id: str, task_id: str, run_id: str) -> dict[str, Any]:
    """What a workflow's metadata says of the task instance that started it."""
    return {
        "dag_id": dag_id,
        "task_id": task_id,
        "run_id": run_id,
        "map_index": -1,
        "run_after": "2026-11-24T00:00:00+00:00",
        "life": "x",
        "max_tries": 0,
        "inputs": "x",
    }


# ---- what the workflows do


@ray.remote
def download(month: int) -> dict[str, int]:
    return {"month": month, "flights": 27_004 + month}


@ray.remote
def clean(flights: dict[str, int]) -> dict[str, int]:
    return flights


@ray.remote
def weather() -> list[str]:
    return ["EWR", "JFK", "LGA"]


@ray.remote
def fit(months: list[Any], stations: list[str]) -> float:
    print(f"fitting {len(months)} months of {len(stations)} stations")
    raise ValueError("the delays of month 3 have no variance")


@ray.remote
def report(model: float) -> str:
    return f"R² = {model}"


def named(function: Any) -> Any:
    """With a task id that does not say which module of the tests it is of."""
    name = function._function_name.rpartition(".")[2]
    return function.options(**workflow.options(task_id=name))


def flights() -> Any:
    months = [named(clean).bind(named(download).bind(month)) for month in (1, 2, 3)]
    return named(report).bind(named(fit).bind(months, named(weather).bind()))


@ray.remote
def book(what: str) -> str:
    return f"{what} booked"


@ray.remote
def pay(*bookings: str) -> Any:
    return workflow.continuation(named(receipt).bind(len(bookings)))


@ray.remote
def receipt(count: int) -> dict[str, int]:
    return {"bookings": count, "paid": 1_250}


@ray.remote
def hostile_task(text: str) -> None:
    raise RuntimeError(text)


@ray.remote
def one() -> int:
    return 1


@ray.remote
def opaque() -> complex:
    return 1j


class Stored:
    """The storage, and what stands in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = WorkflowStore(open_store(str(path)))

    def fill(self) -> None:
        with testing.in_process(str(self.path)) as workflows:
            self._run_all(workflows)
        self.store.changes.write(ChangeLog(writer="alive"))
        self.store.leases.write(lease("alive", ttl_s=3600.0))
        self.add_running()
        self.add_big(BIG, 2000)
        rebuild(self.store, now=time.time())

    def _run_all(self, workflows: testing.InProcessWorkflows) -> None:
        graphs = {
            FAILED: (flights(), origin("ui_flights", "daily", "2026-11-24")),
            SUCCESSFUL: (
                named(pay).bind(named(book).bind("flight"), named(book).bind("hotel")),
                origin("ui_trips", "book", "2026-11-23"),
            ),
            HOSTILE: (
                workflow.options(task_id=HOSTILE)(hostile_task).bind(HOSTILE),
                None,
            ),
            OTHERS: (one.bind(), None),
        }
        for workflow_id, (graph, started_by) in graphs.items():
            metadata = {"team": "<b>data</b>"} | ({"airflow": started_by} if started_by else {})
            end = workflows.run_async(graph, workflow_id=workflow_id, metadata=metadata)
            ray.wait([end])
        failed = self.store.read_status(FAILED)
        assert failed is not None
        assert failed.failure is not None
        # Screenshots show it: not where the tests lie on this machine.
        trace = failed.failure.traceback.replace(f"{Path(__file__).parent}/", "/dags/")
        self.change(FAILED, "FAILED", failure=replace(failed.failure, traceback=trace))

    def run_again(self, workflow_id: str, graph: Callable[[], Any], metadata: Any) -> None:
        """Run one more to its end, for a test that changes it."""
        with testing.in_process(str(self.path)) as workflows:
            end = workflows.run_async(graph(), workflow_id=workflow_id, metadata=metadata)
            ray.wait([end])

    def add_running(self, workflow_id: str = RUNNING) -> StatusRecord:
        """A workflow that a live manager runs."""
        names = ["download", "clean", "fit", "report"]
        tasks = [
            Task(name=name, function=0, arguments=0, upstream=(index - 1,) if index else ())
            for index, name in enumerate(names)
        ]
        now = time.time()
        progress = Progress(
            at=now,
            submitted=1,
            running_total=1,
            running=(
                RunningTask(task_id="fit", attempt=2, started_at=now - 75, node="ray-worker-2"),
            ),
            retried=(FailedAttempt(task_id="fit", attempt=1, error="OSError: no route to host"),),
        )
        record = self._add(
            workflow_id,
            Graph(tasks=tasks, blobs=[b"not a pickle"]),
            done=2,
            progress=progress,
            started_at=now - 200,
            metadata={"airflow": origin("ui_flights", "daily", "2026-11-25")},
        )
        return record

    def add_big(self, workflow_id: str, size: int) -> None:
        """One task after so many of a loop, of which most are done."""
        squares = [
            Task(name=f"square_{number}", function=0, arguments=0, upstream=(0,))
            for number in range(size)
        ]
        start = Task(name="numbers", function=0, arguments=0)
        total = Task(name="total", function=0, arguments=0, upstream=tuple(range(1, size + 1)))
        graph = Graph(tasks=[start, *squares, total], blobs=[b"not a pickle"])
        self._add(workflow_id, graph, done=size * 3 // 4, started_at=time.time() - 900)

    def _add(
        self,
        workflow_id: str,
        graph: Graph,
        *,
        done: int,
        started_at: float,
        progress: Progress | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> StatusRecord:
        metadata = metadata or {}
        given = {"manager_id": "alive", "now": started_at, "user_metadata": metadata}
        claim_epoch(self.store, workflow_id, graph, **given)
        times = TaskTimes(
            started_at=started_at, ended_at=started_at + 12.5, attempt=1, node="ray-worker-1"
        )
        result = Result(encoding=Encoding.JSON, inline=b"1")
        JournalWriter(self.store.bytes, workflow_id, 1).commit(
            [
                TaskRecord(task_id=task.name, times=times, result=result)
                for task in graph.tasks[:done]
            ]
        )
        lines = [LogLine(started_at, "INFO", task.name, 1, PRINTED) for task in graph.tasks[:done]]
        put = self.store.logs.put(workflow_id, 1, 1, lines)
        self.store.bytes.put(put.key, put.data)
        record = status_record(
            WorkflowStatus.RUNNING,
            workflow_id,
            manager_id="alive",
            created_at=started_at,
            started_at=started_at,
            user_metadata=metadata,
            tasks_total=len(graph.tasks),
            tasks_done=done,
            progress=progress or Progress(at=started_at),
        )
        self.store.write_status(record)
        return record

    def change(self, workflow_id: str, status: str, **changes: Any) -> None:
        """Write another status, as the manager of the workflow would."""
        before = self.store.read_status(workflow_id)
        assert before is not None
        after = replace(before, status=WorkflowStatus(status), number=before.number + 1, **changes)
        self.store.write_status(after, replaces=before)

    def status(self, workflow_id: str) -> str | None:
        record = self.store.read_status(workflow_id)
        return record and record.status.value

    def commit(self, workflow_id: str, task_id: str) -> None:
        """Commit one more task of a running one, as its manager would."""
        journal = JournalWriter(self.store.bytes, workflow_id, 1)
        records = list(self.store.read_checkpoints(workflow_id).records.values())
        times = TaskTimes(started_at=time.time() - 80, ended_at=time.time(), attempt=2)
        result = Result(encoding=Encoding.JSON, inline=b"0.5")
        journal.commit([*records, TaskRecord(task_id=task_id, times=times, result=result)])
        record = self.store.read_status(workflow_id)
        assert record is not None
        self.store.write_status(
            replace(record, tasks_done=3, progress=Progress(at=time.time(), submitted=1))
        )

    def delete(self, workflow_id: str) -> None:
        self.store.delete(workflow_id)
