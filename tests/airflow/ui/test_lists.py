"""The list of workflows: its order, its pages, and what it reads."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from noting_store import NotingStore
from sample_records import status_record

from airflow_provider_rayworkflow.plugin.web import lists
from airflow_provider_rayworkflow.plugin.web.lists import Filter, Listed, list_page
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.bounded_cache import BoundedCache
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


class Hook:
    """What of a connection's hook the list needs."""

    ray_workflow_conn_id = "ray"

    def __init__(self) -> None:
        self.bytes = NotingStore()
        self.store = WorkflowStore(self.bytes)
        self.statuses = StatusReader(self.store)
        self.known = known()

    def add(self, workflow_id: str, *, created_at: float, dag_id: str = "") -> None:
        origin = {
            **{"dag_id": dag_id, "task_id": "t", "run_id": "r", "map_index": -1},
            **{"run_after": "", "life": "", "max_tries": 0, "inputs": ""},
        }
        record = status_record(
            WorkflowStatus.SUCCESSFUL,
            workflow_id,
            number=1,
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
def hook() -> Hook:
    return Hook()


def known(max_bytes: int = lists.MAX_KNOWN_BYTES) -> BoundedCache:
    return BoundedCache(max_bytes=max_bytes, size_of=lists._size_of)


def listed(
    hook: Hook, rights: Rights | None = None, *, page: int = 1, text: str = "", **options: int
) -> Listed:
    chosen = Filter(status="", text=text, page=page)
    return list_page(hook, rights or Rights(), chosen, known=hook.known, **options)


def show(hook: Hook, rights: Rights | None = None, **options: Any) -> list[str]:
    return [row.workflow_id for row in listed(hook, rights, **options).rows]


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
    assert hook.bytes.count("get", "v1/status/") == 3


def test_only_what_the_user_may_see_is_counted_and_shown(hook: Hook):
    hook.add("mine", created_at=1.0, dag_id="mine")
    hook.add("theirs", created_at=2.0, dag_id="theirs")
    hook.add("nobody's", created_at=3.0)
    page = listed(hook, Rights("mine"))
    assert ([row.workflow_id for row in page.rows], page.total) == (["mine"], 1)


def test_what_was_not_looked_at_is_told(hook: Hook):
    for number in range(5):
        hook.add(f"w{number}", created_at=0.0)
    page = listed(hook, max_read=2)
    assert (page.total, page.not_looked_at) == (2, 3)


def test_a_damaged_document_says_so_in_its_row_and_hides_no_other_workflow(hook: Hook):
    hook.add("whole", created_at=1.0)
    hook.add("torn", created_at=2.0)
    [key] = [entry.key for entry in hook.bytes.list("v1/status/torn")]
    hook.bytes.put(key, b"{")
    rows = listed(hook).rows
    problems = {row.workflow_id: row.facts.problem for row in rows}
    assert problems == {"whole": "", "torn": "its status is damaged"}
    # The document named the owner: a user who may not see the connection does not see the row.
    assert show(hook, Rights("mine")) == []


def test_the_damaged_document_of_a_long_id_has_a_row_too(hook: Hook):
    long = "x" * 250
    hook.add(long, created_at=1.0)
    [key] = [entry.key for entry in hook.bytes.list("v1/status")]
    hook.bytes.put(key, b"{")
    [name] = show(hook)
    assert name.startswith("x" * 100)


def test_a_status_of_a_newer_version_hides_no_other_workflow(hook: Hook):
    hook.add("now", created_at=1.0)
    hook.add("newer", created_at=2.0)
    [key] = [entry.key for entry in hook.bytes.list("v1/status/newer")]
    hook.bytes.put(key, hook.bytes.get(key).replace(b'"v":1', b'"v":99'))
    assert sorted(show(hook)) == ["newer", "now"]


# ---- memory


def test_large_outputs_are_not_kept_for_rows_that_do_not_show_them(hook: Hook):
    """2,000 workflows with outputs of 63 kB are 126 MB; their rows are some 2 MB."""
    hook.add("w", created_at=1.0)
    record = hook.store.read_status("w")
    assert record is not None
    output = JsonOutput(value="x" * 63_000)
    for number in range(1999):
        hook.store.write_status(replace(record, workflow_id=f"w{number}", output=output))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        show(hook)
        show(hook, page=40)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(hook.known) == 2000
    assert after - before < 10_000_000


def test_what_is_kept_is_bounded_in_bytes_and_the_oldest_goes_first(hook: Hook):
    hook.known = cache = known(20_000)
    for number in range(100):
        hook.add(f"w{number:02}", created_at=float(number), dag_id="d" * 200)
    show(hook)
    assert 0 < len(cache) < 20


def test_a_part_of_the_id_in_any_case_filters(hook: Hook):
    hook.add("Flights.daily", created_at=1.0)
    hook.add("trips", created_at=2.0)
    assert show(hook, text="FLIGHT") == ["Flights.daily"]
