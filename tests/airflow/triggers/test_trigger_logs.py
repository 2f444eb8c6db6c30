"""What a workflow's tasks print is shown while their task instance is deferred: at bounded cost, each line once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from change_log_rows import write_with_log
from dag_test import connection
from sample_records import lease, status_record
from waiting import until

from airflow_provider_rayworkflow.tries import workflow_log
from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger
from airflow_provider_rayworkflow.triggers.workflow import TriggerTimes
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkflowStore:
    """A storage with a manager that is alive."""
    monkeypatch.setenv("AIRFLOW_CONN_LOGGED", connection(storage=str(tmp_path)))
    store = WorkflowStore(open_store(str(tmp_path)))
    store.leases.write(lease(ttl_s=3600))
    return store


def write_status(store: WorkflowStore, workflow_id: str, status: Status, number: int = 0) -> None:
    write_with_log(store, status_record(status, workflow_id, number=number))


def write_lines(store: WorkflowStore, number: int, *texts: str, workflow_id: str = "w") -> None:
    lines = [LogLine(1.0, "WARNING", "load", 1, text) for text in texts]
    put = store.logs.put(workflow_id, 1, number, lines)
    store.bytes.put(put.key, put.data)


def trigger(workflow_id: str = "w", **carried: Any) -> RayWorkflowTrigger:
    return RayWorkflowTrigger(
        workflow_id=workflow_id,
        statuses=["SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED", "NONE"],
        ray_workflow_conn_id="logged",
        poll_interval_s=0.01,
        carried=carried,
        times=TriggerTimes(log_look_s=0.01),
    )


async def fired(waiting: RayWorkflowTrigger) -> dict[str, Any]:
    events = [event.payload async for event in waiting.run()]
    assert len(events) == 1
    return events[0]


def shown(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    records = [r for r in caplog.records if r.name == workflow_log.output.name]
    return [(record.levelno, record.getMessage()) for record in records]


async def test_a_deferred_task_instance_shows_each_line_once(
    store: WorkflowStore, caplog: pytest.LogCaptureFixture
):
    write_status(store, "w", Status.RUNNING)
    write_lines(store, 1, "shown before the deferral")
    waiting = asyncio.create_task(
        fired(trigger(log={"cursor": "1.1.-1", "left": 1000}, takeovers=1))
    )
    write_lines(store, 2, "one", "two")
    await until(lambda: len(shown(caplog)) == 2)
    write_lines(store, 3, "three")
    await until(lambda: len(shown(caplog)) == 3)
    write_lines(store, 4, "the end")
    write_status(store, "w", Status.SUCCESSFUL, number=1)
    event = await waiting
    texts = [text for _, text in shown(caplog)]
    assert texts[:3] == ["[load] one", "[load] two", "[load] three"]
    assert {level for level, _ in shown(caplog)} == {logging.WARNING}
    # What was not shown is left to the second half of the try.
    cursor = event["carried"]["log"]["cursor"]
    assert cursor == ("1.4.-1" if len(texts) == 4 else "1.3.-1")
    assert event["carried"]["takeovers"] == 1


async def test_a_trigger_that_carries_no_log_reads_none(
    store: WorkflowStore, caplog: pytest.LogCaptureFixture
):
    write_status(store, "w", Status.SUCCESSFUL)
    write_lines(store, 1, "one")
    event = await fired(trigger(takeovers=1))
    assert event["carried"] == {"takeovers": 1}
    assert shown(caplog) == []


async def test_a_look_at_the_storage_reads_two_logs_however_many_wait(
    store: WorkflowStore, monkeypatch: pytest.MonkeyPatch
):
    listed: list[str] = []
    call = LocalStore.list

    def counted(self: LocalStore, folder: str) -> Any:
        listed.append(folder)
        return call(self, folder)

    monkeypatch.setattr(LocalStore, "list", counted)
    names = [f"w{number}" for number in range(20)]

    for name in names:
        write_status(store, name, Status.RUNNING)
    triggers = [trigger(name, log={"cursor": "0.0.-1", "left": 1000}) for name in names]
    waiting = [asyncio.create_task(fired(one)) for one in triggers]
    await until(lambda: len({folder for folder in listed if "/logs/" in folder}) == 20)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    rounds = Counter(listed)["v1/changes"]
    looks = sum("/logs/" in folder for folder in listed)
    assert looks <= 2 * rounds
