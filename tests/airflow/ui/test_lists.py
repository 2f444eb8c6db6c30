"""The list of workflows: its order, its pages, and what it reads."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayworkflow.plugin.web import lists
from airflow_provider_rayworkflow.plugin.web.lists import Filter, list_page
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.memory import MemoryStore


class CountingStore(MemoryStore):
    """Counts the status documents that are read."""

    reads = 0

    def get(self, key: str, *args: Any) -> bytes:
        self.reads += key.startswith("v1/status/")
        return super().get(key, *args)


class Hook:
    """What of a connection's hook the list needs."""

    ray_workflow_conn_id = "ray"

    def __init__(self) -> None:
        self.bytes = CountingStore()
        self.store = WorkflowStore(self.bytes)

    def add(self, workflow_id: str, *, created_at: float, dag_id: str = "") -> None:
        origin = {
            **{"dag_id": dag_id, "task_id": "t", "run_id": "r", "map_index": -1},
            **{"run_after": "", "life": "", "max_tries": 0, "inputs": ""},
        }
        record = StatusRecord(
            workflow_id=workflow_id,
            status=WorkflowStatus.SUCCESSFUL,
            epoch=1,
            number=1,
            manager_id="m",
            created_at=created_at,
            user_metadata={"airflow": origin} if dag_id else {},
        )
        self.store.write_status(record)


class Rights:
    """A user who sees one DAG's workflows, or all."""

    def __init__(self, dag_id: str = "") -> None:
        self._dag_id = dag_id

    def allows(self, method: str, conn_id: str, origin: Any) -> bool:
        return not self._dag_id or (origin is not None and origin.key.dag_id == self._dag_id)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Hook:
    monkeypatch.setattr(lists, "_known", {})
    return Hook()


def show(hook: Hook, rights: Rights | None = None, *, page: int = 1, text: str = "") -> list[str]:
    chosen = Filter(status="", text=text, page=page)
    return [row.workflow_id for row in list_page(hook, rights or Rights(), chosen).rows]


def test_the_newest_come_first_fifty_on_a_page(hook: Hook):
    for number in range(60):
        hook.add(f"w{number:02}", created_at=float(number))
    assert show(hook) == [f"w{number:02}" for number in range(59, 9, -1)]
    assert show(hook, page=2) == [f"w{number:02}" for number in range(9, -1, -1)]
    assert show(hook, page=3) == []


def test_what_has_ended_is_read_once(hook: Hook):
    for number in range(3):
        hook.add(f"w{number}", created_at=0.0)
    show(hook)
    show(hook)
    assert hook.bytes.reads == 3


def test_only_what_the_user_may_see_is_counted_and_shown(hook: Hook):
    hook.add("mine", created_at=1.0, dag_id="mine")
    hook.add("theirs", created_at=2.0, dag_id="theirs")
    hook.add("nobody's", created_at=3.0)
    listed = list_page(hook, Rights("mine"), Filter(status="", text="", page=1))
    assert ([row.workflow_id for row in listed.rows], listed.total) == (["mine"], 1)


def test_what_was_not_looked_at_is_told(hook: Hook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "MAX_READ", 2)
    for number in range(5):
        hook.add(f"w{number}", created_at=0.0)
    listed = list_page(hook, Rights(), Filter(status="", text="", page=1))
    assert (listed.total, listed.not_looked_at) == (2, 3)


def test_a_damaged_document_hides_no_other_workflow(hook: Hook):
    hook.add("whole", created_at=1.0)
    hook.add("torn", created_at=2.0)
    [key] = [entry.key for entry in hook.bytes.list("v1/status/torn")]
    hook.bytes.put(key, b"{")
    assert show(hook) == ["whole"]


def test_a_part_of_the_id_in_any_case_filters(hook: Hook):
    hook.add("Flights.daily", created_at=1.0)
    hook.add("trips", created_at=2.0)
    assert show(hook, text="FLIGHT") == ["Flights.daily"]
