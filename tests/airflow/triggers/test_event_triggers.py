"""A finished workflow fires once through Airflow's own stream, also if the triggerer dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager
from dag_test import connection
from sample_records import status_record
from waiting import until

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.triggers import RayWorkflowEventTrigger
from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "storage"
    monkeypatch.setenv("AIRFLOW_CONN_WATCHED", connection(storage=str(root)))
    return root


def end(root: Path, workflow_id: str, status: Status = Status.SUCCESSFUL) -> None:
    WorkflowStore(open_store(str(root))).write_status(status_record(status, workflow_id, number=1))


def watcher(**changes: object) -> RayWorkflowEventTrigger:
    given = {"ray_workflow_conn_id": "watched", "poll_interval_s": 0.01}
    return RayWorkflowEventTrigger(**given | changes)


class Triggerer:
    """What Airflow's triggerer does with one event trigger."""

    def __init__(self, trigger: BaseEventTrigger) -> None:
        self.fired: list[str] = []
        self._trigger = trigger
        self._streams = SharedStreamManager()
        self._key = trigger.shared_stream_key()

    async def run(self, *, stores: bool) -> None:
        """Take events, and tell that they are stored, or die before that."""
        stream = self._streams.subscribe(trigger_id=1, trigger=self._trigger, key=self._key)
        async for event in self._trigger.filter_shared_stream(stream):
            assert isinstance(event, TriggerEvent)
            self.fired.append(event.payload["workflow_id"])
            number = self._streams.bind_pending_event(trigger_id=1, key=self._key)
            if stores:
                asyncio.get_running_loop().call_soon(self._streams.confirm_persisted, [number])

    async def stop(self) -> None:
        await self._streams.stop_all()


@asynccontextmanager
async def triggerer(*, stores: bool = True, **changes: object) -> AsyncIterator[Triggerer]:
    triggerer = Triggerer(watcher(**changes))
    running = asyncio.create_task(triggerer.run(stores=stores))
    try:
        yield triggerer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await triggerer.stop()


def ledgers(root: Path) -> list[str]:
    return [path.read_text() for path in root.glob("v1/watchers/*.json")]


async def test_a_finished_workflow_fires_once_over_restarts(root: Path):
    all_fired = []
    async with triggerer() as first:
        await until(lambda: ledgers(root))
        end(root, "a")
        await until(lambda: '"a":' in ledgers(root)[0])
        all_fired.append(first.fired)
    end(root, "b")  # while no triggerer runs
    async with triggerer() as second:
        await until(lambda: second.fired)
        end(root, "c")
        await until(lambda: "c" in second.fired)
        all_fired.append(second.fired)
    assert all_fired == [["a"], ["b", "c"]]


async def test_an_event_that_airflow_has_not_stored_fires_again(root: Path):
    async with triggerer(stores=False) as dying:
        await until(lambda: ledgers(root))
        end(root, "a")
        await until(lambda: dying.fired)
    async with triggerer() as next_one:
        await until(lambda: next_one.fired)
    assert (dying.fired, next_one.fired) == (["a"], ["a"])


async def test_more_ends_at_once_than_airflows_queue_takes(root: Path):
    async with triggerer():
        await until(lambda: ledgers(root))
    for number in range(1200):
        end(root, f"w{number}")
    async with triggerer() as second:
        await until(lambda: len(second.fired) == 1200)
        assert len(set(second.fired)) == 1200


async def test_a_storage_that_fails_for_a_moment_loses_nothing(root: Path, monkeypatch):
    put, failures = LocalStore.put, [DataSaveError("full"), DataSaveError("full")]

    def fail_at_first(store: LocalStore, key: str, data: object) -> None:
        if "watchers" in key and failures:
            raise failures.pop()
        put(store, key, data)

    monkeypatch.setattr(LocalStore, "put", fail_at_first)
    async with triggerer() as first:
        await until(lambda: ledgers(root))
        failures.extend([DataSaveError("full"), DataSaveError("full")])
        end(root, "a")
        await until(lambda: '"a":' in ledgers(root)[0])
        assert first.fired == ["a"]
    assert not failures


async def test_only_the_statuses_and_ids_that_are_asked_for_fire(root: Path):
    async with triggerer(statuses=["FAILED"], workflow_id_prefix="daily.") as only:
        await until(lambda: ledgers(root))
        for workflow_id, status in [
            ("daily.a", Status.SUCCESSFUL),
            ("other", Status.FAILED),
            ("daily.b", Status.FAILED),
        ]:
            end(root, workflow_id, status)
        await until(lambda: only.fired)
        assert only.fired == ["daily.b"]


def test_airflow_makes_the_same_trigger_of_what_it_has_stored():
    path, arguments = watcher(statuses=["FAILED", "CANCELED"]).serialize()
    again = RayWorkflowEventTrigger(**arguments)
    assert again.serialize() == (path, arguments)
    assert again.shared_stream_key() == watcher(statuses=["CANCELED", "FAILED"]).shared_stream_key()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"statuses": ["RUNNING"]}, "statuses must be a list of"),
        ({"statuses": "FAILED"}, "statuses must be a list of"),
        ({"statuses": []}, "statuses must be a list of"),
        ({"poll_interval_s": 0}, "poll_interval_s must be more than 0"),
        ({"workflow_id_prefix": "x" * 200}, "workflow_id_prefix: The prefix"),
    ],
)
def test_bad_arguments_are_refused(changes: dict, reason: str):
    with pytest.raises(RayWorkflowInputError, match=reason):
        watcher(**changes)
