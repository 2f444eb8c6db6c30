"""What change logs say is taken over into the index, unless others have come in between."""

from collections.abc import Callable, Iterator

import pytest
from change_log_rows import NoNotes
from sample_records import status_record

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import Entry, WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.index_updates import take_over
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

FAILED = IndexRow.of(status_record(Status.FAILED, epoch=5, number=1), "w")


@pytest.fixture
def store() -> WorkflowStore:
    """Without a workflow, with an index."""
    store = WorkflowStore(MemoryStore()).with_notes(NoNotes())
    rebuild(store, now=1.0)
    return store


def listed(store: WorkflowStore) -> list[str]:
    everything = [status for status in Status if status is not Status.NONE]
    return [one.workflow_id for one in Overview(store).find(everything)]


def test_a_change_that_is_certain_is_taken_over_as_the_log_has_it(store: WorkflowStore):
    since = store.index.last_version()
    take_over(store, [Change(seq=1, segment="w", row=FAILED)], since=since, now=2.0)
    assert listed(store) == ["w"]


def test_an_index_that_was_made_anew_brings_nothing_back_that_was_deleted_before(
    store: WorkflowStore,
):
    """A manager's log still says that it has failed; a visitor has deleted it, and its log was taken over."""
    since = store.index.last_version()
    change = Change(seq=1, segment="w", row=FAILED)
    store.changes.write(ChangeLog(writer="m", changes=[change], seq=1, version=since))
    rebuild(store, now=2.0)
    assert listed(store) == []
    take_over(store, [change], since=since, now=3.0)
    store.changes.delete("m")
    assert listed(store) == []


class Busy(MemoryStore):
    """Lets something happen, once, when all statuses have been listed."""

    then: Callable[[], object] | None = None

    def list(self, folder: str) -> Iterator[Entry]:
        found = list(super().list(folder))
        if folder == keys.STATUSES and self.then is not None:
            then, self.then = self.then, None
            then()
        return iter(found)


def test_what_is_taken_over_while_an_index_is_made_anew_is_in_it():
    busy = Busy()
    store = WorkflowStore(busy).with_notes(NoNotes())
    store.write_status(status_record(Status.FAILED, "before", number=1))
    store.write_status(status_record(Status.FAILED, "deleted", number=1))
    rebuild(store, now=1.0)
    since = store.index.last_version()

    def meanwhile() -> None:
        store.write_status(status_record(Status.FAILED, "w", epoch=5, number=1))
        store.delete("deleted")
        gone = IndexRow(segment="deleted", workflow_id="deleted", status=Status.NONE)
        rows = {"w": FAILED, "deleted": gone}
        changes = [
            Change(seq=seq, segment=segment, row=row)
            for seq, (segment, row) in enumerate(rows.items(), start=1)
        ]
        take_over(store, changes, since=since, now=2.0)

    busy.then = meanwhile
    assert rebuild(store, now=3.0) == 2
    assert sorted(listed(store)) == ["before", "w"]


def test_an_index_that_is_there_gets_the_next_version_when_it_is_made_anew(store: WorkflowStore):
    """Of a commit that comes at the same time and this one, one is first: they want the same root."""
    before = store.index.last_version()
    rebuild(store, now=5_000_000.0)
    assert store.index.last_version() == before + 1
