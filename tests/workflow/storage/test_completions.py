"""Each end of a workflow is given once, and after a restart again until it is confirmed."""

import time

import pytest
from noting_store import NotingStore
from sample_records import status_record

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs


@pytest.fixture
def store() -> WorkflowStore:
    return WorkflowStore(MemoryStore())


def write(store: WorkflowStore, workflow_id: str, status: Status, *, epoch: int = 1) -> None:
    fields = {"epoch": epoch, "number": 1, "manager_id": "gone", "changed_at": time.time()}
    store.write_status(status_record(status, workflow_id, **fields))


def watcher(store: WorkflowStore, *statuses: Status, prefix: str = "") -> Completions:
    return Completions(store, "watcher", statuses=statuses or (Status.SUCCESSFUL,), prefix=prefix)


def ids(completions: list) -> list[str]:
    return [completion.workflow_id for completion in completions]


def test_an_end_before_the_first_look_is_not_given(store: WorkflowStore):
    write(store, "before", Status.SUCCESSFUL)
    ends = watcher(store)
    assert ends.look() == []
    write(store, "after", Status.SUCCESSFUL)
    assert ids(ends.look()) == ["after"]
    assert ends.look() == []


def test_an_end_is_given_to_the_next_process_until_it_is_confirmed(store: WorkflowStore):
    watcher(store).look()
    write(store, "A long ID " + "x" * 300, Status.SUCCESSFUL)
    for _ in range(2):
        ends = watcher(store)
        (given,) = ends.look()
        assert given.to_json() == {
            "workflow_id": "A long ID " + "x" * 300,
            "status": "SUCCESSFUL",
            "epoch": 1,
        }
    ends.confirm([given])
    assert watcher(store).look() == []


class FullStore(MemoryStore):
    """Takes nothing while it is full."""

    is_full = True

    def put(self, key: str, data: Data) -> None:
        if self.is_full:
            raise DataSaveError("full")
        super().put(key, data)


def test_a_first_look_that_could_not_be_noted_does_not_count():
    full = FullStore()
    store = WorkflowStore(full)
    ends = watcher(store)
    with pytest.raises(DataSaveError):
        ends.look()
    full.is_full = False
    ends.look()
    write(store, "w", Status.SUCCESSFUL)
    assert ids(watcher(store).look()) == ["w"]


def test_an_end_that_comes_between_two_watchers_is_given(store: WorkflowStore):
    watcher(store).look()
    write(store, "w", Status.SUCCESSFUL)
    assert ids(watcher(store).look()) == ["w"]


def test_each_end_of_a_workflow_that_starts_over_or_is_resumed_counts(store: WorkflowStore):
    ends = watcher(store, Status.FAILED, Status.SUCCESSFUL)
    ends.look()
    write(store, "w", Status.FAILED)
    ends.confirm(ends.look())
    write(store, "w", Status.SUCCESSFUL, epoch=2)
    (given,) = ends.look()
    assert (given.status, given.key.epoch) == (Status.SUCCESSFUL, 2)


def test_a_late_confirmation_of_one_end_does_not_confirm_the_next(store: WorkflowStore):
    ends = watcher(store, Status.FAILED, Status.SUCCESSFUL)
    ends.look()
    write(store, "w", Status.FAILED)
    first = ends.look()
    write(store, "w", Status.SUCCESSFUL, epoch=2)
    ends.look()
    ends.confirm(first)
    (again,) = watcher(store, Status.FAILED, Status.SUCCESSFUL).look()
    assert again.status is Status.SUCCESSFUL


def test_an_end_that_was_lost_on_the_way_is_given_again(store: WorkflowStore):
    ends = watcher(store)
    ends.look()
    write(store, "w", Status.SUCCESSFUL)
    (given,) = ends.look()
    ends.give_again(given)
    assert ends.look() == [given]


def test_a_workflow_whose_owner_is_gone_ends_as_resumable(store: WorkflowStore):
    ends = watcher(store, Status.RESUMABLE)
    ends.look()
    write(store, "w", Status.RUNNING)
    (given,) = ends.look()
    assert given.status is Status.RESUMABLE


def test_only_ids_of_the_prefix_count(store: WorkflowStore):
    ends = watcher(store, prefix="Daily.")
    ends.look()
    for workflow_id in ("Daily.a", "daily.a", "Daily", "Daily." + "x" * 300):
        write(store, workflow_id, Status.SUCCESSFUL)
    assert sorted(ids(ends.look())) == ["Daily.a", "Daily." + "x" * 300]


def test_deleted_workflows_are_forgotten_and_count_when_they_come_again(store: WorkflowStore):
    ends = watcher(store)
    ends.look()
    write(store, "w", Status.SUCCESSFUL)
    ends.confirm(ends.look())
    store.delete("w")
    assert ends.look() == []
    write(store, "w", Status.SUCCESSFUL)
    assert ids(ends.look()) == ["w"]


def test_a_first_look_at_a_damaged_index_gives_nothing_that_had_ended_before(store: WorkflowStore):
    write(store, "before", Status.SUCCESSFUL)
    rebuild(store, now=time.time())
    for entry in list(store.bytes.list("v1/index")):
        store.bytes.put(entry.key, b"torn")
    ends = watcher(store)
    assert ends.look() == []
    write(store, "after", Status.SUCCESSFUL)
    rebuild(store, now=time.time())
    assert ids(ends.look()) == ["after"]
    assert ids(watcher(store).look()) == ["after"]


def test_what_came_into_the_index_is_looked_at_once_also_where_nothing_is_confirmed():
    noting = NotingStore()
    store = WorkflowStore(noting)
    rebuild(store, now=1.0)
    ends = watcher(store, prefix="mine.")
    ends.look()
    left = LeftLogs(store, tell=lambda rows: None)
    reads = []
    for number in range(300):
        write(store, f"w{number}", Status.SUCCESSFUL)
        left.take_over(2.0)
        noting.calls.clear()
        ends.look()
        reads.append(len(noting.calls))
    assert max(reads) <= min(reads) + 4
    noting.calls.clear()
    assert watcher(store, prefix="mine.").look() == []
    assert len(noting.calls) <= max(reads) + 4


def test_a_prefix_that_is_too_long_is_refused(store: WorkflowStore):
    with pytest.raises(ValueError, match="give a shorter one"):
        watcher(store, prefix="x" * 101)


@pytest.mark.parametrize("days", [3, 60])
def test_an_end_that_a_watcher_missed_while_the_index_was_made_anew_is_given(
    store: WorkflowStore, days: int
):
    """And none that it has passed on before."""
    now = time.time()
    rebuild(store, now=now)
    write(store, "passed on", Status.SUCCESSFUL)
    ends = watcher(store)
    ends.look()
    write(store, "missed", Status.SUCCESSFUL)
    LeftLogs(store).take_over(now)
    rebuild(store, now=now + days * 86_400)
    assert ids(watcher(store).look()) == ["missed"]


def test_an_end_that_was_lost_on_the_way_is_given_again_also_after_the_index_was_made_anew(
    store: WorkflowStore,
):
    """It is older than the note that the others were passed on."""
    now = [time.time() - 3 * 86_400]
    rebuild(store, now=now[0])
    Completions(store, "watcher", statuses=(Status.SUCCESSFUL,), clock=lambda: now[0]).look()
    for workflow_id in ("lost", "passed on"):
        old = {"epoch": 1, "number": 1, "manager_id": "gone", "changed_at": now[0]}
        store.write_status(status_record(Status.SUCCESSFUL, workflow_id, **old))
    now[0] = time.time()
    rebuild(store, now=now[0])
    ends = Completions(store, "watcher", statuses=(Status.SUCCESSFUL,), clock=lambda: now[0])
    lost, passed_on = ends.look()
    assert (lost.workflow_id, passed_on.workflow_id) == ("lost", "passed on")
    ends.confirm([passed_on])
    ends.give_again(lost)
    assert ids(ends.look()) == ["lost"]
