"""What managers and visitors have left in their change logs comes into the index, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from agreement import check_lists, fresh
from change_log_rows import LogWriter
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLogs
from airflow_provider_rayworkflow.workflow.storage.change_notes import VisitorNotes, new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseWatch, Process
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_key, status_put
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

GONE = replace(Process.current(), pid=2**22 + 1, started="1")


class World:
    """A storage with an index, and one that takes over what is left.

    :ivar now: what its clock says, in seconds that never jump.
    """

    def __init__(self, bytes_: NotingStore | None = None) -> None:
        self.now = 100.0
        self.bytes = bytes_ or NotingStore()
        self.store = WorkflowStore(self.bytes)
        self.store.leases.watch = LeaseWatch(lambda: self.now)
        rebuild(self.store, now=1.0)
        self.left = LeftLogs(self.store, own="keeper", elapsed=lambda: self.now)

    def write(self, *records: StatusRecord) -> None:
        """Write statuses that no log tells of."""
        for record in records:
            put = status_put(record)
            self.bytes.put(put.key, put.data)

    def take_over(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.left.take_over(10.0)

    @property
    def writers(self) -> list[str]:
        return [one for one in self.store.changes.writers() if not self.is_hint(one)]

    def is_hint(self, writer: str) -> bool:
        log = self.store.changes.read(writer)
        return log.is_done and not log.untaken

    def indexed(self, segment: str = "w") -> Status | None:
        """What the index itself has."""
        tree = self.store.index.load()
        assert tree is not None
        value = tree.get(f"i/{segment}")
        return value and Status(value["status"])

    def check(self) -> None:
        """Lists show what is stored."""
        store = fresh(self.bytes, self.store.leases.watch)
        stored = StatusReader(store, patient=True).list_workflows()
        check_lists(store, {workflow_id: status for workflow_id, status, _ in stored})


@pytest.fixture
def world() -> World:
    return World()


def test_the_log_of_a_manager_that_has_closed_is_taken_over_at_once(world: World):
    done = status_record(Status.SUCCESSFUL, number=1)
    world.write(done)
    log = LogWriter(world.store)
    log.note(done)
    log.flush(is_done=True)
    world.take_over()
    assert (world.indexed(), world.writers) == (Status.SUCCESSFUL, [])
    world.check()


def test_a_manager_whose_process_is_gone_is_believed_no_row_and_what_it_wrote_last_is_found(
    world: World,
):
    world.store.leases.write(lease(process=GONE))
    running, done = status_record(Status.RUNNING), status_record(Status.SUCCESSFUL, number=1)
    log = LogWriter(world.store)
    log.note(running)
    log.look("started")
    log.flush()
    world.write(done, status_record(Status.RUNNING, "started"))
    world.check()
    world.take_over()
    assert (world.indexed(), world.indexed("started")) == (Status.SUCCESSFUL, Status.RUNNING)
    assert world.writers == []
    world.check()


def test_an_end_that_a_dead_manager_wrote_is_found_also_where_its_log_has_forgotten_the_begin(
    world: World,
):
    world.write(status_record(Status.RUNNING))
    rebuild(world.store, now=2.0)
    LogWriter(world.store).flush()
    world.store.leases.write(lease(process=GONE))
    world.write(status_record(Status.SUCCESSFUL, number=1))
    world.take_over()
    assert world.indexed() is Status.SUCCESSFUL


def test_a_manager_elsewhere_is_gone_when_its_lease_was_not_renewed_for_its_whole_time(
    world: World,
):
    elsewhere = replace(Process.current(), machine="another")
    world.store.leases.write(lease(process=elsewhere, ttl_s=15.0))
    world.write(status_record(Status.RUNNING))
    log = LogWriter(world.store)
    log.look("w")
    log.flush()
    for _ in range(3):
        world.take_over(after_s=4.9)
    assert world.writers == ["m"]
    world.take_over(after_s=5.5)
    assert world.writers == []
    assert world.indexed() is Status.RUNNING
    world.check()


def test_a_log_that_stands_there_before_its_manager_has_a_lease_is_left_for_a_minute(world: World):
    LogWriter(world.store).flush()
    for _ in range(3):
        world.take_over(after_s=19.0)
    assert world.writers == ["m"]
    world.take_over(after_s=30.0)
    assert world.writers == []


def test_the_log_of_a_manager_that_lives_stays(world: World):
    world.store.leases.write(lease(ttl_s=1e9))
    log = LogWriter(world.store)
    log.look("w")
    log.flush()
    for _ in range(3):
        world.take_over(after_s=10_000.0)
    assert world.writers == ["m"]


def test_a_visitor_that_says_nothing_for_ten_minutes_is_gone_and_one_that_goes_on_is_not(
    world: World,
):
    elapsed = [0.0]
    logs, index = world.store.changes, world.store.index
    acting = world.store.with_notes(VisitorNotes(logs, index, lambda: elapsed[0]))
    with acting.notes.changing(["w", "v"]):
        for _ in range(30):
            elapsed[0] += 100.0
            world.take_over(after_s=100.0)
            with acting.notes.changing(["w"]):
                assert len(world.writers) == 1
        for _ in range(7):
            assert len(world.writers) == 1
            world.take_over(after_s=100.0)
        assert world.writers == []
        world.write(status_record(Status.FAILED, "v", manager_id="visitor"))
        with acting.notes.changing(["v"]):  # it was held up only, and writes its log again
            elapsed[0] += 100.0
    assert len(world.writers) == 1
    world.take_over()
    assert (world.indexed("v"), world.writers) == (Status.FAILED, [])
    world.check()


def test_a_log_that_is_written_again_while_it_is_taken_over_stays():
    class Held(NotingStore):
        """The writer wakes up when the status has been read."""

        def list(self, folder: str) -> Iterator[Entry]:
            found = super().list(folder)
            if wakes_up and folder == keys.status_folder("w"):
                wakes_up.pop()()
            return found

    wakes_up: list = []
    world = World(Held())
    log = LogWriter(world.store, new_visitor_id())
    log.look("w")
    log.flush()
    world.take_over()

    def go_on() -> None:
        late = status_record(Status.CANCELED, manager_id="visitor")
        world.write(late)
        log.note(late)
        log.flush(is_done=True)

    wakes_up.append(go_on)
    world.take_over(after_s=1000.0)
    assert wakes_up == []
    assert world.writers != []
    world.take_over()
    assert (world.indexed(), world.writers) == (Status.CANCELED, [])


def test_of_a_damaged_log_all_statuses_are_listed_until_its_writer_is_gone(world: World):
    world.store.leases.write(lease(process=GONE))
    world.write(status_record(Status.SUCCESSFUL, number=1))
    world.bytes.put(keys.change_log_key("m"), b"torn")
    world.check()
    world.take_over()
    assert (world.indexed(), world.writers) == (Status.SUCCESSFUL, [])
    world.check()


def test_a_log_that_is_not_signed_is_not_believed():
    signing = SigningKeys.from_text("a-key")
    bytes_ = NotingStore()
    store = WorkflowStore(bytes_, signing=signing)
    rebuild(store, now=1.0)
    store.write_status(status_record(Status.FAILED, number=1))
    now = [0.0]
    left = LeftLogs(store, elapsed=lambda: now[0])
    left.take_over(2.0)
    forged = LogWriter(WorkflowStore(bytes_))
    forged.note(status_record(Status.SUCCESSFUL, number=2))
    forged.flush(is_done=True)
    check_lists(store, {"w": Status.FAILED})
    for _ in range(2):
        left.take_over(3.0)
        now[0] += 100.0
    check_lists(store, {"w": Status.FAILED})
    assert "m" not in ChangeLogs(bytes_).writers()


def test_nothing_is_deleted_while_there_is_no_index():
    bytes_ = NotingStore()
    store = WorkflowStore(bytes_)
    store.write_status(status_record(Status.FAILED, number=1))
    LeftLogs(store).take_over(1.0)
    assert len(store.changes.writers()) == 1


@pytest.mark.parametrize("taken_first", ["the manager's", "the visitor's"])
def test_a_deletion_by_a_visitor_and_the_row_of_a_manager_end_as_what_is_stored(
    world: World, taken_first: str
):
    """The visitor dies right after the status was deleted; the manager lives, and has not taken over its row."""
    done = status_record(Status.SUCCESSFUL, number=1)
    world.store.leases.write(lease(ttl_s=1e9))
    world.write(done)
    manager = LogWriter(world.store)
    manager.log = replace(manager.log, version=world.store.index.last_version())
    manager.note(done)
    manager.flush()
    visitor = LogWriter(world.store, new_visitor_id())
    visitor.look("w")
    visitor.flush()
    world.bytes.delete([status_key(done)])
    world.check()
    if taken_first == "the visitor's":
        world.take_over()
        world.take_over(after_s=1000.0)
        world.check()
        manager.flush(is_done=True)
    else:
        manager.flush(is_done=True)
        world.take_over()
        world.check()
    world.take_over(after_s=1000.0)
    world.take_over(after_s=1000.0)
    assert world.writers == []
    assert world.indexed() in (None, Status.NONE)
    world.check()


def test_a_workflow_that_comes_again_after_its_deletion_is_the_one_that_is_stored(world: World):
    """By the same manager, by another one: its epochs count from 1 again."""
    for manager_id in ("m", "n", "m"):
        log = LogWriter(world.store, manager_id)
        old = status_record(Status.SUCCESSFUL, epoch=3, number=1, manager_id=manager_id)
        world.write(old)
        log.note(old)
        log.flush(is_done=True)
        world.take_over()
        assert world.indexed() is Status.SUCCESSFUL
        world.store.delete("w")
        new = status_record(Status.FAILED, epoch=1, number=1, manager_id=manager_id)
        world.write(new)
        log = LogWriter(world.store, manager_id)
        log.note(new)
        log.flush(is_done=True)
        world.check()
        world.take_over()
        assert world.indexed() is Status.FAILED
        world.check()
        world.store.delete("w")
        world.check()
