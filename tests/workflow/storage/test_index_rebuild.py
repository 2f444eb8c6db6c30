"""An index that is made anew of all statuses: of any number, in bounded memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
from agreement import check_lists, fresh
from change_log_rows import NoNotes
from sample_records import status_record
from stepwise import Stepwise

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import Entry, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.index_updates import take_over
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_put

ENDED = (Status.SUCCESSFUL, Status.FAILED, Status.CANCELED)


class Counting(MemoryStore):
    """Counts the rows that there are while the nodes of an index are written, and lists names apart."""

    most = 0

    def put_all(self, puts: list[Put]) -> None:
        self.count()
        super().put_all(puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key.endswith("7-SUCCESSFUL-m.json"):
            self.count()
        return super().get(key, start, length)

    def count(self) -> None:
        self.most = max(self.most, sum(type(one) is IndexRow for one in gc.get_objects()))

    def list(self, folder: str) -> Iterator[Entry]:
        return iter(sorted(super().list(folder), key=lambda entry: entry.key.rpartition("/")[2]))


def filled(store: MemoryStore, number: int) -> dict[str, Status]:
    """Workflows of which some have two status documents, as a manager that was killed leaves them."""
    statuses = {f"w{one:04}": ENDED[one % 3] for one in range(number)}
    for at, (workflow_id, status) in enumerate(statuses.items()):
        for epoch in range(2 if at % 10 else 1, 3):
            put = status_put(status_record(status, workflow_id, epoch=epoch, number=at % 10))
            store.put(put.key, put.data)
    return statuses


def test_workflows_are_not_held_while_an_index_is_made_of_them():
    counting = Counting()
    statuses = filled(counting, 300)
    gc.freeze()  # what was there before is not counted
    assert rebuild(WorkflowStore(counting), now=1.0, most=20) == 300
    gc.unfreeze()
    assert 0 < counting.most <= 20
    check_lists(fresh(counting), statuses)


def test_an_index_of_many_is_the_same_as_one_of_few():
    few, many = MemoryStore(), MemoryStore()
    for store, most in ((few, 10_000), (many, 7)):
        filled(store, 100)
        rebuild(WorkflowStore(store).with_notes(NoNotes()), now=1.0, most=most)
    trees = [WorkflowStore(store).index.load() for store in (few, many)]
    one, other = ([*tree.scan()] for tree in trees if tree)
    assert one == other


def listed(store: MemoryStore) -> dict[str, Status]:
    return {one.workflow_id: one.status for one in Overview(fresh(store)).find(ENDED)}


def changes(store: MemoryStore, workflow_id: str, status: Status, *, now: float) -> None:
    """A visitor changes a workflow, and a manager takes its log over where there is an index."""
    opened = fresh(store).with_notes(NoNotes())
    since = opened.index.last_version()
    record = status_record(status, workflow_id, epoch=9, number=9)
    opened.write_status(record)
    change = Change(seq=1, segment=workflow_id, row=IndexRow.of(record, workflow_id))
    visit = ChangeLog(writer="visitor-1", changes=[change], seq=1, version=since, is_done=True)
    opened.changes.write(visit)
    if take_over(opened, [change], since=since, now=now) is not None:
        opened.changes.delete("visitor-1")


def rebuilds(now: float) -> Callable[[ByteStore], object]:
    return lambda store: rebuild(fresh(store), now=now)


@pytest.mark.parametrize(("one_now", "other_now"), [(1000.0, 1005.0), (1005.0, 1000.0)])
def test_two_that_make_a_lost_index_anew_at_the_same_time_lose_no_change(
    one_now: float, other_now: float
):
    """Wherever both stand when one of them goes on, and a change comes in before the other one does."""
    for of_other in range(40):
        for of_one in range(40):
            store = MemoryStore()
            filled(store, 2)
            one = Stepwise(store, rebuilds(one_now))
            other = Stepwise(store, rebuilds(other_now))
            other.step(of_other)
            one.step(of_one)
            is_other_done, is_one_done = other.is_done, one.is_done
            one.finish()
            changes(store, "w0000", Status.CANCELED, now=one_now)
            there = {"w0000": Status.CANCELED, "w0001": Status.FAILED}
            while not other.is_done:
                other.step()
                assert listed(store) == there, f"after {of_other} and {of_one} calls"
            assert listed(store) == there
            if is_one_done:
                break
        if is_other_done:
            return
    raise AssertionError("they take more calls than were tried")
