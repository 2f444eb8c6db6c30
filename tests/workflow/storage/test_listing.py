"""Pages of a list: which workflows they have, in which order, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow, counted_as, index_keys
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.index_keys import INDEX_NODES, INDEX_ROOTS
from airflow_provider_rayworkflow.workflow.storage.index_nodes import node_cache
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.listing import (
    LISTED,
    ListFilter,
    ListPage,
    Sort,
    UnknownPageError,
    check_begin,
    count_last_day,
    iterate,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import HeldRows, Listed, Overview

SUCCESSFUL, FAILED = WorkflowStatus.SUCCESSFUL, WorkflowStatus.FAILED
RUNNING, RESUMABLE = WorkflowStatus.RUNNING, WorkflowStatus.RESUMABLE
ENDED = (SUCCESSFUL, FAILED, RESUMABLE, WorkflowStatus.CANCELED)
DAY_S = 86_400.0
ALL = ListFilter()


class Storage:
    """A storage with workflows, which managers or visitors wrote, and maybe an index of them."""

    def __init__(self) -> None:
        self.bytes = NotingStore()
        self.store = WorkflowStore(self.bytes)

    def add(
        self,
        workflow_id: str,
        status: WorkflowStatus = SUCCESSFUL,
        *,
        dag_id: str = "",
        created_at: float = 0.0,
        **fields: Any,
    ) -> None:
        metadata = {ORIGIN_KEY: {"dag_id": dag_id}} if dag_id else {}
        record = status_record(
            status, workflow_id, created_at=created_at, user_metadata=metadata, **fields
        )
        self.store.write_status(record)

    def add_many(self, number: int, **fields: Any) -> None:
        for one in range(number):
            self.add(f"w{one:03}", created_at=float(one), **fields)

    def let_manager_live(self, manager_id: str = "m") -> None:
        self.store.changes.write(ChangeLog(writer=manager_id))
        self.store.leases.write(lease(manager_id))

    def index_all(self) -> None:
        """As a manager's index keeper does it."""
        rows = [self.store.read_row(segment) for segment in self.store.list_segments()]
        items = {key: row.to_json() for row in rows if row for key in index_keys(row)}
        assert self.store.index.commit(self.store.index.load(), items)
        for writer in self.store.changes.writers():
            if writer != "m":
                self.store.changes.delete(writer)
        self.bytes.calls.clear()

    def index_rows(self, rows: Iterable[IndexRow]) -> None:
        """Workflows of which nothing is stored but what the index has."""
        items = {key: row.to_json() for row in rows for key in index_keys(row)}
        assert self.store.index.commit(None, items)
        self.forget_nodes()

    def forget_nodes(self) -> None:
        """As in a process that has read nothing yet."""
        self.store.index = Index(self.bytes, tally=counted_as, cache=node_cache(1_000_000))
        self.bytes.calls.clear()

    def overview(self) -> Overview:
        return Overview(self.store)

    @property
    def reads(self) -> int:
        return self.bytes.count("get") + self.bytes.count("list")


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture(params=["with an index", "without an index"])
def filled(request: pytest.FixtureRequest, storage: Storage) -> Callable[[], Storage]:
    """Both ways have to find the same."""

    def fill() -> Storage:
        if request.param == "with an index":
            storage.index_all()
        return storage

    return fill


def ids(rows: Sequence[Listed]) -> list[str]:
    return [listed.workflow_id for listed in rows]


def page(storage: Storage, chosen: ListFilter = ALL, **options: Any) -> ListPage:
    return read_page(storage.overview(), chosen, **{"size": 50} | options)


def all_pages(storage: Storage, chosen: ListFilter = ALL, **options: Any) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        one = page(storage, chosen, after=after, **options)
        found += ids(one.rows)
        if not (after := one.next):
            return found


# ---- what a page has


def test_the_newest_come_first_and_next_begins_where_a_page_ended(storage: Storage, filled: Any):
    storage.add_many(5)
    filled()
    first = page(storage, size=2)
    assert ids(first.rows) == ["w004", "w003"]
    second = page(storage, size=2, after=first.next)
    assert ids(second.rows) == ["w002", "w001"]
    last = page(storage, size=2, after=second.next)
    assert (ids(last.rows), last.next, last.is_cut) == (["w000"], "", False)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("sort", ["created", "ended", "id"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_of_each_order_have_each_workflow_once(
    storage: Storage, filled: Any, sort: Sort, descending: bool, size: int
):
    storage.let_manager_live()
    for number, status in enumerate([SUCCESSFUL, FAILED, RUNNING, RUNNING, FAILED, SUCCESSFUL]):
        ended = None if status.is_active else 100.0 - number
        storage.add(f"w{number}", status, created_at=float(number % 3), ended_at=ended)
    filled()
    found = all_pages(storage, sort=sort, descending=descending, size=size)
    expected = {
        "created": ["w0", "w3", "w1", "w4", "w2", "w5"],
        "ended": ["w3", "w2", "w5", "w4", "w1", "w0"],
        "id": ["w0", "w1", "w2", "w3", "w4", "w5"],
    }[sort]
    assert found == (expected[::-1] if descending else expected)
    assert found == ids(
        [*iterate(storage.overview(), ListFilter(), sort=sort, descending=descending)]
    )


def test_workflows_of_a_dag_and_of_some_statuses_are_found(storage: Storage, filled: Any):
    storage.add("a1", FAILED, dag_id="a", created_at=1.0)
    storage.add("a2", SUCCESSFUL, dag_id="a", created_at=2.0)
    storage.add("a3", WorkflowStatus.CANCELED, dag_id="a", created_at=3.0)
    storage.add("b1", FAILED, dag_id="b", created_at=4.0)
    storage.add("n1", FAILED, created_at=5.0)
    filled()
    of_dag = ListFilter(dag_id="a")
    assert ids(page(storage, of_dag).rows) == ["a3", "a2", "a1"]
    both = frozenset({FAILED, SUCCESSFUL})
    assert ids(page(storage, ListFilter(dag_id="a", statuses=both)).rows) == ["a2", "a1"]
    assert ids(page(storage, ListFilter(statuses=both)).rows) == ["n1", "b1", "a2", "a1"]
    by_id = page(storage, of_dag, sort="id", descending=False)
    assert ids(by_id.rows) == ["a1", "a2", "a3"]


@pytest.mark.parametrize("sort", ["created", "ended", "id"])
def test_times_of_creation_bound_a_page(storage: Storage, filled: Any, sort: Sort):
    storage.add_many(6)
    filled()
    chosen = ListFilter(since=1.0, until=4.0)
    assert all_pages(storage, chosen, sort=sort, size=2) == ["w003", "w002", "w001"]
    assert page(storage, ListFilter(since=4.0, until=1.0), sort=sort).rows == []


def test_one_whose_manager_is_gone_is_found_by_its_honest_status(storage: Storage, filled: Any):
    storage.let_manager_live()
    storage.add("held", RUNNING, created_at=1.0)
    storage.add("lost", RUNNING, created_at=2.0, manager_id="gone")
    filled()
    assert ids(page(storage, ListFilter(statuses=frozenset({RUNNING}))).rows) == ["held"]
    for sort in ("created", "ended", "id"):
        [lost] = page(storage, ListFilter(statuses=frozenset({RESUMABLE})), sort=sort).rows
        assert (lost.workflow_id, lost.status) == ("lost", RESUMABLE)


def test_what_stands_in_a_change_log_only_is_found(storage: Storage):
    storage.add("old", created_at=1.0)
    storage.index_all()
    storage.add("new", created_at=2.0)
    storage.store.delete("old")
    assert ids(page(storage).rows) == ["new"]


def test_deleted_workflows_are_not_listed_by_id(storage: Storage):
    storage.add("w")
    storage.index_all()
    storage.store.delete("w")
    gone = IndexRow(segment="w", workflow_id="w", status=WorkflowStatus.NONE)
    assert storage.store.index.commit(storage.store.index.load(), {"i/w": gone.to_json()})
    assert page(storage, sort="id").rows == []


# ---- a part of the id


def test_a_part_of_the_id_in_any_case_selects(storage: Storage, filled: Any):
    storage.add("Flights.daily", created_at=1.0)
    storage.add("trips", created_at=2.0)
    storage.add("night-flight", created_at=3.0)
    filled()
    assert all_pages(storage, ListFilter(text="FLIGHT")) == ["night-flight", "Flights.daily"]


def test_ids_that_begin_with_the_text_come_first_then_the_others(storage: Storage, filled: Any):
    storage.add("flight-1", created_at=1.0)
    storage.add("a flight", created_at=2.0)
    storage.add("flight-2", created_at=0.0)
    filled()
    chosen = ListFilter(text="flight")
    first = page(storage, chosen)
    assert (ids(first.rows), first.is_cut) == (["flight-2", "flight-1"], True)
    assert ids(page(storage, chosen, after=first.next).rows) == ["a flight"]
    assert all_pages(storage, chosen, size=1) == ["flight-2", "flight-1", "a flight"]


@pytest.mark.parametrize("length", [99, 150, 250])
def test_long_ids_are_found_by_what_they_begin_with(storage: Storage, filled: Any, length: int):
    long = "x" * length
    storage.add(long, created_at=1.0)
    storage.add("y" * length, created_at=2.0)
    filled()
    for text in (long, long[:98], long[:-1]):
        assert all_pages(storage, ListFilter(text=text)) == [long]


def test_an_exact_id_is_found_though_many_are_stored(storage: Storage):
    storage.add_many(300)
    storage.index_all()
    found = page(storage, ListFilter(text="w007"), most_looked_at=10)
    assert ids(found.rows) == ["w007"]


def test_looking_at_rows_ends_and_goes_on_with_the_next_page(storage: Storage):
    storage.add_many(30)
    storage.index_all()
    chosen = ListFilter(text="05")  # w005 is the 25th
    first = page(storage, chosen, most_looked_at=20)
    assert (first.rows, first.is_cut) == ([], True)
    second = page(storage, chosen, most_looked_at=20, after=first.next)
    assert (ids(second.rows), second.next, second.is_cut) == (["w005"], "", False)


# ---- what the caller must not see


def test_a_page_is_filled_with_what_is_shown(storage: Storage, filled: Any):
    storage.add_many(10)
    filled()

    def is_even(listed: Listed) -> bool:
        return int(listed.workflow_id[1:]) % 2 == 0

    first = page(storage, size=3, is_shown=is_even)
    assert ids(first.rows) == ["w008", "w006", "w004"]
    assert ids(page(storage, size=3, is_shown=is_even, after=first.next).rows) == ["w002", "w000"]


def test_there_is_no_next_page_where_only_hidden_ones_follow(storage: Storage, filled: Any):
    storage.add_many(5)
    filled()
    shown = page(storage, size=1, is_shown=lambda listed: listed.workflow_id == "w004")
    assert (ids(shown.rows), shown.next, shown.is_cut) == (["w004"], "", False)


# ---- begins


@pytest.mark.parametrize("after", ["x", "!", "é", "W10", "bnVsbA", "WyJjcmVhdGVkIl0"])
def test_a_broken_begin_is_refused_with_a_remedy(storage: Storage, after: str):
    with pytest.raises(ValueError, match="begin with the first page"):
        page(storage, after=after)


def test_a_begin_of_another_order_is_refused(storage: Storage):
    storage.add_many(3)
    begin = page(storage, size=1).next
    with pytest.raises(ValueError, match="begin with the first page"):
        page(storage, after=begin, sort="id")
    with pytest.raises(ValueError, match="begin with the first page"):
        page(storage, after=begin, descending=False)


@pytest.mark.parametrize(
    "other",
    [
        ListFilter(statuses=frozenset({FAILED})),
        ListFilter(dag_id="d"),
        ListFilter(text="w"),
    ],
    ids=["status", "DAG", "text"],
)
def test_a_begin_of_another_filter_is_refused(storage: Storage, other: ListFilter):
    storage.add_many(3)
    begin = page(storage, size=1).next
    with pytest.raises(UnknownPageError, match="another storage, filter or order"):
        page(storage, other, after=begin)
    every = ListFilter(statuses=LISTED)
    assert ids(page(storage, every, after=begin).rows) == ["w001", "w000"]


def test_a_begin_of_another_storage_is_refused(storage: Storage, tmp_path: Path):
    storage.add_many(3)
    begin = page(storage, size=1).next
    elsewhere = Overview(WorkflowStore(LocalStore(tmp_path)))
    check_begin(begin, ALL)
    with pytest.raises(UnknownPageError, match="another storage, filter or order"):
        read_page(elsewhere, ALL, size=1, after=begin)


def test_with_other_times_a_begin_goes_on_from_the_same_place(storage: Storage):
    """An age is another time with each call."""
    storage.add_many(5)
    begin = page(storage, ListFilter(since=0.0), size=2).next
    assert ids(page(storage, ListFilter(since=1.0, until=9.0), after=begin).rows) == [
        "w002",
        "w001",
    ]


# ---- what it costs


@pytest.mark.parametrize(
    ("chosen", "sort"),
    [
        (ListFilter(), "created"),
        (ListFilter(), "id"),
        (ListFilter(statuses=frozenset({FAILED})), "created"),
        (ListFilter(statuses=frozenset({FAILED})), "ended"),
        (ListFilter(dag_id="d", statuses=frozenset({FAILED})), "created"),
        (ListFilter(dag_id="d"), "created"),
        (ListFilter(since=500.0, until=600.0), "created"),
        (ListFilter(text="w0500"), "created"),
    ],
)
def test_a_page_costs_what_it_shows(storage: Storage, chosen: ListFilter, sort: Sort):
    storage.let_manager_live()
    storage.index_rows(
        IndexRow(
            segment=f"w{number:04}",
            workflow_id=f"w{number:04}",
            status=FAILED if number % 10 == 0 else SUCCESSFUL,
            created_at=float(number),
            origin={"dag_id": "d" if number % 5 == 0 else "e"},
        )
        for number in range(3000)
    )
    assert page(storage, chosen, sort=sort).rows
    assert storage.bytes.count("get", "v1/status") == 0
    assert storage.reads <= 12


def with_many_that_run(storage: Storage) -> None:
    """3,000 that have ended in each way, and 1,000 that a living manager runs."""
    storage.let_manager_live()
    storage.index_rows(
        IndexRow(
            segment=f"w{number:04}",
            workflow_id=f"w{number:04}",
            status=RUNNING if number >= 3000 else ENDED[number % 4],
            manager_id="m",
            created_at=float(number),
        )
        for number in range(4000)
    )


@pytest.mark.parametrize("descending", [True, False])
def test_a_page_by_end_reads_one_order_where_it_has_all_statuses(
    storage: Storage, descending: bool
):
    with_many_that_run(storage)
    found = page(storage, sort="ended", descending=descending).rows
    assert ids(found)[0] == ("w3999" if descending else "w0000")
    assert storage.bytes.count("get", INDEX_NODES) <= 2
    assert storage.reads <= 12


def test_counts_do_not_read_what_a_living_manager_runs(storage: Storage):
    with_many_that_run(storage)
    assert count_last_day(storage.overview(), now=DAY_S + 1000.0) == {
        RUNNING: 1000,
        **dict.fromkeys(ENDED, 500),
    }
    assert storage.bytes.count("get", INDEX_NODES) <= 2
    assert storage.reads <= 12


# ---- without an index that serves


def test_so_many_status_documents_are_read_and_no_more(storage: Storage):
    storage.add_many(10)
    storage.bytes.calls.clear()
    found = page(storage, size=2, most_read=3)
    assert (ids(found.rows), found.is_cut) == (["w009", "w008"], True)
    assert storage.bytes.count("get", "v1/status") == 3
    last = page(storage, size=2, most_read=3, after=found.next)
    assert (ids(last.rows), last.next, last.is_cut) == (["w007"], "", True)


def test_a_damaged_status_hides_no_other_workflow(storage: Storage):
    storage.add("torn", created_at=1.0)
    storage.add("whole", created_at=2.0)
    [entry] = storage.bytes.list("v1/status/torn")
    storage.bytes.put(entry.key, b"{")
    found = page(storage)
    assert [(one.workflow_id, one.has_times) for one in found.rows] == [
        ("whole", True),
        ("torn", False),
    ]


@pytest.mark.parametrize("folder", [INDEX_ROOTS, INDEX_NODES])
def test_a_damaged_index_gives_the_same_page_and_a_warning_with_the_remedy(
    storage: Storage, folder: str, caplog: pytest.LogCaptureFixture
):
    storage.add_many(300)
    storage.index_all()
    expected = all_pages(storage)
    storage.forget_nodes()
    for entry in [*storage.bytes.list(folder)]:
        storage.bytes.put(entry.key, b"torn")
    assert all_pages(storage) == expected
    assert ids([*iterate(storage.overview(), ListFilter())]) == expected
    assert count_last_day(storage.overview(), now=100.0) == {}
    assert "Storage memory://: a list reads all statuses" in caplog.text
    assert "run `rayworkflow reindex`" in caplog.text


# ---- counts


def test_the_workflows_of_the_last_day_are_counted_by_status(storage: Storage):
    now = 10 * DAY_S
    storage.let_manager_live()
    storage.add("old", FAILED, created_at=now - DAY_S - 1)
    for number in range(3):
        storage.add(f"failed{number}", FAILED, created_at=now - number)
    storage.add("held", RUNNING, created_at=now - 1)
    storage.add("lost", RUNNING, created_at=now - 1, manager_id="gone")
    storage.add("ends", RUNNING, created_at=now - 1)
    storage.index_all()
    storage.add("ends", SUCCESSFUL, created_at=now - 1, number=1)
    storage.add("new", FAILED, created_at=now)
    storage.store.delete("failed0")
    counts = count_last_day(storage.overview(), now)
    assert counts == {FAILED: 3, RUNNING: 1, RESUMABLE: 1, SUCCESSFUL: 1}


def test_a_workflow_that_was_restarted_is_counted_once(storage: Storage):
    now = 10 * DAY_S
    storage.let_manager_live()
    storage.add("again", FAILED, created_at=now - 100)
    storage.index_all()
    storage.add("again", SUCCESSFUL, created_at=now - 1, epoch=2)
    assert count_last_day(storage.overview(), now) == {SUCCESSFUL: 1}


def test_counts_cost_a_few_reads(storage: Storage):
    storage.let_manager_live()
    storage.index_rows(
        IndexRow(segment=f"w{n}", workflow_id=f"w{n}", status=SUCCESSFUL, created_at=float(n))
        for n in range(3000)
    )
    assert count_last_day(storage.overview(), now=DAY_S + 500.0) == {SUCCESSFUL: 2500}
    assert storage.reads <= 12


def test_nothing_is_counted_without_an_index(storage: Storage):
    storage.add_many(3)
    assert count_last_day(storage.overview(), now=0.0) == {}


def test_a_name_is_quoted_as_in_segments(storage: Storage):
    storage.add("Äpfel/1", created_at=1.0)
    storage.index_all()
    assert quote_id("Äpfel/1") != "Äpfel/1"
    assert ids(page(storage, ListFilter(text="Äpfel/"), most_looked_at=1).rows) == ["Äpfel/1"]


# ---- what a manager holds


def test_what_a_manager_holds_stands_in_lists_as_it_knows_it(
    filled: Callable[[], Storage], storage: Storage
) -> None:
    storage.let_manager_live()
    storage.add("ended", RUNNING, created_at=3.0)
    storage.add("dropped", RUNNING, created_at=2.0)
    storage.add("done", created_at=1.0)
    filled()
    known = [
        status_record(FAILED, "ended", number=1, created_at=3.0),
        status_record(RUNNING, "begins", created_at=4.0),
    ]
    rows = {record.workflow_id: IndexRow.of(record, record.workflow_id) for record in known}
    held = HeldRows(manager_id="m", rows=rows)
    found = read_page(Overview(storage.store, held=held), ALL, size=9).rows
    assert [(one.workflow_id, one.status) for one in found] == [
        ("begins", RUNNING),
        ("ended", FAILED),
        ("dropped", RESUMABLE),
        ("done", SUCCESSFUL),
    ]
    running = ListFilter(statuses=frozenset({RUNNING}))
    assert ids(read_page(Overview(storage.store, held=held), running, size=9).rows) == ["begins"]
    resumable = ListFilter(statuses=frozenset({RESUMABLE}))
    assert ids(read_page(Overview(storage.store, held=held), resumable, size=9).rows) == ["dropped"]
