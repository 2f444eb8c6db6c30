"""The list of workflows: its order, its pages, what it reads, and what it does not tell."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.plugin.web.chosen import Chosen
from airflow_provider_rayworkflow.plugin.web.lists import (
    Counts,
    ShownPage,
    count_page,
    list_page,
    visible_part,
)
from airflow_provider_rayworkflow.plugin.web.seals import seal, unseal
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow, counted_as, index_keys
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.index_nodes import node_cache

NOW = 1_000_000.0
SUCCESSFUL, FAILED = WorkflowStatus.SUCCESSFUL, WorkflowStatus.FAILED


class Hook:
    """What of a connection's hook the list needs."""

    ray_workflow_conn_id = "ray"

    def __init__(self) -> None:
        self.bytes = NotingStore()
        self.store = WorkflowStore(self.bytes)

    def add(
        self,
        workflow_id: str,
        status: WorkflowStatus = SUCCESSFUL,
        *,
        created_at: float = 0.0,
        dag_id: str = "",
        **fields: Any,
    ) -> None:
        record = status_record(
            status,
            workflow_id,
            number=1,
            created_at=created_at,
            user_metadata={"airflow": origin(dag_id)} if dag_id else {},
            **fields,
        )
        self.store.write_status(record)

    def index(self, rows: list[IndexRow]) -> None:
        """Workflows of which nothing is stored but what the index of a living manager has."""
        items = {key: row.to_json() for row in rows for key in index_keys(row)}
        assert self.store.index.commit(None, items)
        self.store.changes.write(ChangeLog(writer="m"))
        self.store.leases.write(lease("m"))
        # As in a process that has read nothing yet.
        self.store.index = Index(self.bytes, tally=counted_as, cache=node_cache(1_000_000))
        self.bytes.calls.clear()

    @property
    def requests(self) -> int:
        return self.bytes.count("get") + self.bytes.count("list")


def origin(dag_id: str) -> dict[str, Any]:
    return {
        **{"dag_id": dag_id, "task_id": "t", "run_id": "r", "map_index": -1},
        **{"run_after": "", "life": "", "max_tries": 0, "inputs": ""},
    }


def row(workflow_id: str, status: WorkflowStatus = SUCCESSFUL, **fields: Any) -> IndexRow:
    given = {"segment": workflow_id, "workflow_id": workflow_id, "created_at": 0.0}
    return IndexRow(status=status, **given | fields)


class Rights:
    """A user who sees one DAG's workflows, or all."""

    def __init__(self, dag_id: str = "") -> None:
        self._dag_id = dag_id

    def allows(self, method: str, conn_id: str, origin: Any) -> bool:
        return not self._dag_id or (origin is not None and origin.key.dag_id == self._dag_id)

    def allows_all(self, conn_id: str) -> bool:
        return not self._dag_id


@pytest.fixture
def hook() -> Hook:
    return Hook()


def listed(hook: Hook, rights: Rights | None = None, **chosen: Any) -> ShownPage:
    return list_page(hook, rights or Rights(), Chosen(**chosen))


def show(hook: Hook, rights: Rights | None = None, **chosen: Any) -> list[str]:
    return [row.workflow_id for row in listed(hook, rights, **chosen).rows]


def test_the_newest_come_first_fifty_on_a_page(hook: Hook):
    for number in range(60):
        hook.add(f"w{number:02}", created_at=float(number))
    first = listed(hook)
    assert [row.workflow_id for row in first.rows] == [f"w{n:02}" for n in range(59, 9, -1)]
    second = listed(hook, after=first.next)
    assert [row.workflow_id for row in second.rows] == [f"w{n:02}" for n in range(9, -1, -1)]
    assert (second.next, second.is_lost) == ("", False)


def test_the_list_is_filtered_and_sorted_as_its_url_says(hook: Hook):
    hook.add("Flights.daily", FAILED, created_at=100.0, dag_id="flights")
    hook.add("Flights.hourly", created_at=200.0, dag_id="flights")
    hook.add("trips", FAILED, created_at=300.0)
    assert show(hook, text="FLIGHT") == ["Flights.hourly", "Flights.daily"]
    assert show(hook, status=["FAILED"]) == ["trips", "Flights.daily"]
    assert show(hook, dag_id="flights") == ["Flights.hourly", "Flights.daily"]
    assert show(hook, since="1970-01-01T00:02", until="1970-01-01T00:05+00:00") == [
        "Flights.hourly"
    ]
    assert show(hook, sort="id", order="asc") == ["Flights.daily", "Flights.hourly", "trips"]


@pytest.mark.parametrize("after", ["x", seal("x"), "é"], ids=["no seal", "sealed", "no ASCII"])
def test_a_page_that_is_not_known_is_the_first_one_and_says_so(hook: Hook, after: str):
    hook.add("w")
    page = listed(hook, after=after)
    assert ([row.workflow_id for row in page.rows], page.is_lost) == (["w"], True)


def test_a_page_of_another_order_is_not_known(hook: Hook):
    for number in range(60):
        hook.add(f"w{number:02}")
    assert listed(hook, after=listed(hook).next, sort="id").is_lost


def test_a_page_of_another_filter_or_storage_is_not_known(hook: Hook, tmp_path: Path):
    for number in range(60):
        hook.add(f"w{number:02}")
    after = listed(hook).next
    assert not listed(hook, after=after).is_lost
    assert listed(hook, after=after, text="w").is_lost
    other = Hook()
    other.store = WorkflowStore(LocalStore(tmp_path))
    other.add("w")
    page = listed(other, after=after)
    assert ([row.workflow_id for row in page.rows], page.is_lost) == (["w"], True)


# ---- rights


def test_only_what_the_user_may_see_is_shown(hook: Hook):
    hook.add("mine", created_at=1.0, dag_id="mine")
    hook.add("theirs", created_at=2.0, dag_id="theirs")
    hook.add("nobody's", created_at=3.0)
    page = listed(hook, Rights("mine"))
    assert [row.workflow_id for row in page.rows] == ["mine"]
    assert (page.next, page.is_cut) == ("", False)


def counted(hook: Hook, rights: Rights | None = None) -> Counts:
    return count_page(hook, rights or Rights(), clock=lambda: NOW)


def test_counts_of_the_last_day_are_for_those_who_may_see_all(hook: Hook):
    rows = [row(f"w{n}", FAILED, created_at=NOW - n, origin=origin("mine")) for n in range(3)]
    hook.index([*rows, row("old", created_at=NOW - 90_000)])
    assert counted(hook) == Counts(since="1970-01-11T13:46:40", numbers={FAILED: 3})
    assert counted(hook, Rights("mine")).numbers == {}


def test_the_link_of_a_count_shows_what_it_counts(hook: Hook):
    hook.index([row(f"w{n}", FAILED, created_at=NOW - 43_200 * n) for n in range(5)])
    counts = counted(hook)
    assert len(show(hook, since=counts.since)) == counts.numbers[FAILED] == 3


def test_a_link_to_the_next_page_names_no_workflow_that_is_hidden(hook: Hook):
    hook.index([row(f"secret-{n:04}", created_at=float(n)) for n in range(5200)])
    page = listed(hook, Rights("mine"), sort="id")
    assert (page.rows, page.is_cut) == ([], True)
    assert page.next != seal(unseal(page.next))  # else equal ones could be recognized
    assert "secret" not in page.next
    assert listed(hook, Rights("mine"), sort="id", after=page.next).next == ""


# ---- what can't be read


def test_a_damaged_document_says_so_in_its_row_and_hides_no_other_workflow(hook: Hook):
    hook.add("whole", created_at=1.0)
    hook.add("torn", created_at=2.0)
    [key] = [entry.key for entry in hook.bytes.list("v1/status/torn")]
    hook.bytes.put(key, b"{")
    problems = {row.workflow_id: row.problem for row in listed(hook).rows}
    assert problems == {"whole": "", "torn": "its status is damaged, or can't be read"}
    # The document named the owner: a user who may not see the connection does not see the row.
    assert show(hook, Rights("mine")) == []


def test_the_damaged_document_of_a_long_id_has_a_row_too(hook: Hook):
    hook.add("x" * 250, created_at=1.0)
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


# ---- costs


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"status": ["FAILED"]},
        {"status": ["FAILED"], "sort": "ended"},
        {"dag_id": "d1", "status": ["RUNNING"]},
        {"text": "w012"},
        {"since": "1970-01-10T00:00", "until": "1970-01-11T00:00"},
    ],
)
def test_a_page_takes_at_most_twelve_requests(hook: Hook, chosen: dict[str, Any]):
    hook.index(many())
    assert listed(hook, **chosen).rows
    assert hook.requests <= 12
    assert hook.bytes.count("get", "v1/status") == 0


def test_counts_take_at_most_twelve_requests(hook: Hook):
    hook.index(many())
    assert sum(counted(hook).numbers.values()) == 1441
    assert hook.requests <= 12


def test_a_page_without_rows_tells_nothing_to_a_user_without_rights_on_the_connection(hook: Hook):
    hook.add("w", dag_id="theirs")
    lost = listed(hook, Rights("mine"), after="x")
    cut = ShownPage(next="x", is_cut=True)
    assert lost.is_lost
    for page in (lost, cut, None):
        assert visible_part(page, may_see_connection=False) == ShownPage()
        assert visible_part(page, may_see_connection=True) == page
    own = listed(hook, Rights("theirs"))
    assert visible_part(own, may_see_connection=False) == own


def many() -> list[IndexRow]:
    statuses = [SUCCESSFUL, FAILED, WorkflowStatus.RUNNING]
    return [
        row(
            f"w{n:04}",
            statuses[n % 3],
            created_at=NOW - 60.0 * n,
            manager_id="m",
            origin=origin(f"d{n % 2}"),
        )
        for n in range(3000)
    ]


def test_large_outputs_are_not_kept_for_rows_that_do_not_show_them(hook: Hook):
    """1,000 workflows with outputs of 63 kB are 63 MB; their rows are some 1 MB."""
    output = JsonOutput(value="x" * 63_000)
    for number in range(1000):
        hook.add(f"w{number}", output=output)
    hook.bytes.delete_folder("v1/changes")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        page = listed(hook)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page.rows) == 50
    assert after - before < 5_000_000
    assert peak - before < 50_000_000


def test_a_page_holds_few_of_many_rows(hook: Hook):
    hook.index([row(f"w{n:05}", created_at=float(n)) for n in range(20_000)])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        listed(hook, text="no such")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 50_000_000
