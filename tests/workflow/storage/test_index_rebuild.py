"""An index that is made anew of all statuses: of any number, in bounded memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from agreement import check_lists, fresh
from change_log_rows import NoNotes
from sample_records import status_record

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import Entry, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.statuses import status_put

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
