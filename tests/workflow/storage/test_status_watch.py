"""What a watch of statuses costs, and what it sees when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from change_log_rows import LogWriter, NoNotes, write_with_log
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, UntrustedDataError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry
from airflow_provider_rayworkflow.workflow.storage.change_follower import LATE_S
from airflow_provider_rayworkflow.workflow.storage.keys import change_log_key
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import (
    READS_A_SECOND,
    SLOW_S,
    StatusWatch,
)


class FailingStore(NotingStore):
    """Fails where a test says so.

    :ivar errors: by the key or the folder.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, DataLoadError] = {}

    def list(self, folder: str) -> Iterator[Entry]:
        found = super().list(folder)
        if folder in self.errors:
            raise self.errors[folder]
        return found

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        found = super().get(key, start, length)
        if key in self.errors:
            raise self.errors[key]
        return found


class World:
    """A storage with the manager ``"m"``, which is alive, and a watch.

    :ivar now: what the watch's clock says.
    """

    def __init__(self, bytes_: NotingStore | None = None, *, check_s: float = 1e9) -> None:
        self.now = 100.0
        self.bytes = bytes_ or FailingStore()
        self.store = WorkflowStore(self.bytes).with_notes(NoNotes())
        self.store.leases.write(lease(ttl_s=1e6))
        self.log = LogWriter(self.store)
        self.log.flush()
        self.watch = StatusWatch(
            StatusReader(self.store, patient=True), lambda: self.now, check_s=check_s
        )

    def write(
        self, status: Status, *workflow_ids: str, number: int = 0, flush: bool = True
    ) -> None:
        records = [status_record(status, one, number=number) for one in workflow_ids]
        for record in records:
            self.store.write_status(record)
        if flush:
            self.log.note(*records)
            self.log.flush()

    def look(self, *segments: str, after_s: float = 0.0) -> dict[str, str]:
        """Each one's honest status, or the error."""
        self.now += after_s
        self.bytes.calls.clear()
        standings = self.watch.look(segments)
        return {
            segment: one[0].value if isinstance(one, tuple) else str(one)
            for segment, one in standings.items()
        }

    @property
    def read(self) -> list[str]:
        """The workflows whose statuses the latest look has listed."""
        return [
            folder.removeprefix("v1/status/")
            for call, folder in self.bytes.calls
            if call == "list" and folder != "v1/changes"
        ]


@pytest.fixture
def world() -> World:
    return World()


def names(count: int, prefix: str = "w") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("stored", [10, 3000])
def test_a_look_costs_the_same_however_many_are_stored_and_watched(stored: int) -> None:
    world = World()
    world.write(Status.SUCCESSFUL, *names(stored, "old"))
    world.write(Status.RUNNING, *names(1000))
    assert len(world.look(*names(1000))) == 1000
    assert set(world.look(*names(1000), after_s=1).values()) == {"RUNNING"}
    assert world.bytes.calls == [
        ("list", "v1/changes"),
        ("get", "v1/changes/m.json"),
        ("get", "v1/leases/m.json"),
    ]
    world.write(Status.FAILED, "w7", "w8", number=1)
    standings = world.look(*names(1000), after_s=1)
    assert {name for name in standings if standings[name] == "FAILED"} == {"w7", "w8"}
    assert sorted(world.read) == ["w7", "w8"]
    assert len(world.bytes.calls) == 5


def test_a_row_of_a_status_that_is_known_costs_nothing(world: World) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.log.note(status_record(Status.RUNNING, tasks_done=3))
    world.log.flush()
    assert world.look("w") == {"w": "RUNNING"}
    assert world.read == []


def test_a_workflow_that_begins_is_seen_by_its_look_row_before_the_log_has_its_status(
    world: World,
) -> None:
    assert world.look("w") == {}
    assert world.look("w", after_s=1) == {}
    assert world.read == []
    world.log.look("w")
    world.log.flush()
    assert world.look("w", after_s=1) == {}
    world.write(Status.RUNNING, "w", flush=False)
    assert world.look("w", after_s=1) == {"w": "RUNNING"}
    assert world.look("w", after_s=1) == {"w": "RUNNING"}
    assert world.read == ["w"], "at each look, until the log has its row"
    world.log.note(status_record(Status.RUNNING))
    world.log.flush()
    world.look("w", after_s=1)
    assert world.read == []


def test_an_old_look_row_is_read_every_ten_seconds(world: World) -> None:
    world.log.look("w")
    world.log.flush()
    world.look("w")
    world.look("w", after_s=30)
    reads = []
    for _ in range(20):
        world.look("w", after_s=1)
        reads += world.read
    assert reads == ["w", "w"]


def test_a_look_row_that_leaves_the_log_is_read_once_more(world: World) -> None:
    world.log.look("w")
    world.log.flush()
    world.look("w")
    world.log.log = replace(world.log.log, changes=[], forgotten=world.log.log.seq)
    world.log.flush()
    world.look("w", after_s=1)
    assert world.read == ["w"]
    world.look("w", after_s=1)
    assert world.read == []


def test_a_look_row_that_came_before_the_watch_counts(world: World) -> None:
    world.log.look("w")
    world.log.flush()
    world.look("other")
    world.look("w", "other", after_s=1)
    world.write(Status.RUNNING, "w", flush=False)
    assert world.look("w", "other", after_s=1) == {"w": "RUNNING"}


def test_the_end_that_a_manager_wrote_right_before_its_death_is_seen_and_no_loss(
    world: World,
) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.write(Status.SUCCESSFUL, "w", number=1, flush=False)
    world.store.leases.delete("m")
    assert world.look("w", after_s=1) == {"w": "SUCCESSFUL"}


def test_a_lost_workflow_is_read_again_every_ten_seconds_as_late_writes_may_arrive(
    world: World,
) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.store.leases.delete("m")
    assert world.look("w", after_s=1) == {"w": "RESUMABLE"}
    world.write(Status.SUCCESSFUL, "w", number=1, flush=False)
    assert world.look("w", after_s=SLOW_S - 1) == {"w": "RESUMABLE"}
    assert world.look("w", after_s=1) == {"w": "SUCCESSFUL"}


def test_no_workflow_of_a_dead_manager_is_lost_before_its_status_was_read(world: World) -> None:
    many = names(2 * READS_A_SECOND + 50)
    world.write(Status.RUNNING, *many)
    world.look(*many)
    world.write(Status.SUCCESSFUL, *many[::2], number=1, flush=False)
    world.store.leases.delete("m")
    for number in range(1, 4):
        standings = world.look(*many, after_s=1)
        assert "RESUMABLE" not in {standings[name] for name in many[::2]}
        assert len(world.read) == (50 if number == 3 else READS_A_SECOND)
    assert list(standings.values()).count("SUCCESSFUL") == len(many[::2])
    assert list(standings.values()).count("RESUMABLE") == len(many[1::2])


def test_another_manager_that_takes_a_lost_workflow_over_is_seen(world: World) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.store.leases.delete("m")
    world.look("w", after_s=1)
    world.store.leases.write(lease("next", ttl_s=1e6))
    write_with_log(world.store, status_record(Status.RUNNING, epoch=2, manager_id="next"))
    assert world.look("w", after_s=1) == {"w": "RUNNING"}


def test_a_manager_that_is_lost_a_second_time_is_read_a_second_time(world: World) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.store.leases.delete("m")
    assert world.look("w", after_s=1) == {"w": "RESUMABLE"}
    world.store.leases.write(lease(ttl_s=1e6))
    assert world.look("w", after_s=1) == {"w": "RUNNING"}
    world.write(Status.FAILED, "w", number=1, flush=False)
    world.store.leases.delete("m")
    assert world.look("w", after_s=1) == {"w": "FAILED"}


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_without_a_log_that_can_be_read_a_status_is_read_every_ten_seconds(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    if how == "missing":
        world.log.delete()
    else:
        world.bytes.put(change_log_key("m"), b"{")
    world.look("w", "new", after_s=1)
    world.write(Status.SUCCESSFUL, "w", number=1, flush=False)
    world.write(Status.SUCCESSFUL, "new", flush=False)
    assert world.look("w", "new", after_s=SLOW_S - 1)["w"] == "RUNNING"
    assert world.look("w", "new", after_s=1)["w"] == "SUCCESSFUL"
    if how == "damaged":
        assert world.look("w", "new") == {"w": "SUCCESSFUL", "new": "SUCCESSFUL"}
        assert caplog.text.count("m.json") == 1


def test_a_log_that_can_be_read_again_is_followed_from_where_it_was(world: World) -> None:
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.bytes.put(change_log_key("m"), b"{")
    world.look("w", after_s=1)
    world.write(Status.FAILED, "w", number=1)
    assert world.look("w", after_s=1) == {"w": "FAILED"}


def test_what_a_log_forgot_before_it_was_read_is_found(world: World) -> None:
    world.write(Status.RUNNING, *names(3))
    world.look(*names(3))
    world.write(Status.FAILED, "w1", number=1)
    world.log.forget(world.log.log.seq)
    world.log.flush()
    assert world.look(*names(3), after_s=1)["w1"] == "FAILED"
    world.look(*names(3), after_s=1)
    assert world.read == [], "once"


def test_a_log_that_forgot_something_costs_a_read_of_those_alone_whose_row_it_lacks(
    world: World,
) -> None:
    world.write(Status.FAILED, "gone")
    world.write(Status.RUNNING, "x", "y", "moved")
    world.look("x", "y", "moved", "gone")
    seq = world.log.log.seq
    world.log.note(status_record(Status.RUNNING, "y", tasks_done=1))
    world.log.forget(world.log.log.seq - 1)
    world.write(Status.FAILED, "moved", number=1)
    world.log.forget(seq + 1)
    world.log.note(status_record(Status.RUNNING, "x", tasks_done=1))
    world.log.flush()
    standings = world.look("x", "y", "moved", "gone", after_s=1)
    assert standings == {"x": "RUNNING", "y": "RUNNING", "moved": "FAILED", "gone": "FAILED"}
    assert sorted(world.read) == ["gone", "moved", "y"]


def test_a_log_that_forgot_something_costs_no_read_of_what_another_manager_runs(
    world: World,
) -> None:
    world.store.leases.write(lease("busy", ttl_s=1e6))
    busy = LogWriter(world.store, "busy")
    world.write(Status.RUNNING, "w")
    world.look("w", "none")
    busy.note(*(status_record(Status.SUCCESSFUL, name, manager_id="busy") for name in names(9)))
    busy.forget(5)
    busy.flush()
    world.look("w", "none", after_s=1)
    assert world.read == ["none"], "it may have run and ended unseen"


def test_what_stood_in_a_log_that_was_deleted_before_it_was_read_is_found(world: World) -> None:
    world.write(Status.FAILED, "w")
    visitor = LogWriter(world.store, "visitor")
    visitor.look("other")
    visitor.flush()
    world.look("w")
    world.store.delete("w")
    visitor.delete()
    assert world.look("w", after_s=1) == {}


def test_a_log_that_begins_anew_is_read_from_its_beginning(world: World) -> None:
    world.write(Status.RUNNING, "w", "x", "y")
    world.look("w")
    world.log.log = replace(world.log.log, changes=[], seq=0)
    world.write(Status.FAILED, "w", number=1)
    assert world.look("w", after_s=1) == {"w": "FAILED"}


def test_a_log_that_vanishes_between_the_listing_and_its_read_is_one_that_is_gone() -> None:
    class Vanishing(NotingStore):
        def list(self, folder: str) -> Iterator[Entry]:
            found = list(super().list(folder))
            if folder == "v1/changes":
                self.delete([change_log_key("m")])
            return iter(found)

    world = World(Vanishing())
    world.write(Status.RUNNING, "w", flush=False)
    assert world.look("w") == {"w": "RUNNING"}


def test_a_look_that_comes_too_late_for_logs_that_came_and_went_reads_all(world: World) -> None:
    world.write(Status.FAILED, "w")
    world.look("w")
    world.store.delete("w")
    assert world.look("w", after_s=LATE_S) == {"w": "FAILED"}
    assert world.look("w", after_s=LATE_S + 1) == {}


def test_the_log_of_a_visitor_that_is_done_is_read_once(world: World) -> None:
    world.write(Status.FAILED, "w")
    world.look("w")
    visitor = LogWriter(world.store, "visitor")
    world.store.delete("w")
    visitor.gone("w")
    visitor.flush(is_done=True)
    assert world.look("w", after_s=1) == {}
    world.look("w", after_s=1)
    assert world.bytes.count("get", "visitor") == 0
    visitor.delete()
    world.look("w", after_s=1)
    assert world.read == []


def test_the_status_that_was_read_longest_ago_is_read_every_thirty_seconds() -> None:
    world = World(check_s=30)
    world.write(Status.FAILED, *names(3))
    world.look(*names(3))
    reads = []
    for _ in range(95):
        world.look(*names(3), after_s=1)
        reads += world.read
    assert sorted(reads) == names(3)


def test_a_look_reads_a_hundred_statuses_a_second_and_first_those_that_waited_longest(
    world: World,
) -> None:
    many = names(3 * READS_A_SECOND)
    world.write(Status.RUNNING, *many)
    world.look(*many)
    world.write(Status.FAILED, *many, number=1)
    read = []
    for _ in range(3):
        standings = world.look(*many, after_s=1)
        assert len(world.read) == READS_A_SECOND
        read += world.read
    assert sorted(read) == sorted(many)
    assert set(standings.values()) == {"FAILED"}
    world.write(Status.SUCCESSFUL, *many, number=2)
    assert set(world.look(*many, after_s=3).values()) == {"SUCCESSFUL"}


@pytest.mark.parametrize(
    "key", ["v1/changes", "v1/changes/m.json", "v1/leases/m.json", "v1/status/w"]
)
def test_a_storage_that_fails_for_a_moment_costs_no_change(world: World, key: str) -> None:
    world.write(Status.RUNNING, "w")
    world.write(Status.RUNNING, "other")
    world.look("w", "other")
    world.write(Status.FAILED, "w", number=1)
    world.bytes.errors[key] = DataLoadError("away", is_transient=True)
    with pytest.raises(DataLoadError, match="away"):
        world.look("w", "other", after_s=1)
    world.bytes.errors.clear()
    assert world.look("w", "other", after_s=1) == {"w": "FAILED", "other": "RUNNING"}
    assert "other" not in world.read


def test_what_is_known_is_kept_over_another_connection_to_the_same_storage(world: World) -> None:
    world.write(Status.RUNNING, "w", "other")
    world.look("w", "other")
    leases = world.store.leases.watch
    known, world.bytes = world.bytes, FailingStore()
    for entry in known.list("v1"):
        world.bytes.put(entry.key, known.get(entry.key))
    world.store = WorkflowStore(world.bytes).with_notes(NoNotes())
    world.log = LogWriter(world.store)
    world.watch.use(StatusReader(world.store, patient=True))
    world.write(Status.FAILED, "w", number=1)
    assert world.look("w", "other", after_s=1) == {"w": "FAILED", "other": "RUNNING"}
    assert world.read == ["w"]
    assert world.store.leases.watch is leases, "it knows for how long each lease has been the same"


def test_a_folder_that_can_not_be_read_concerns_its_workflow_alone(world: World) -> None:
    world.write(Status.RUNNING, "w", "closed")
    world.bytes.errors["v1/status/closed"] = DataLoadError("denied")
    assert world.look("w", "closed") == {"w": "RUNNING", "closed": "denied"}
    world.bytes.errors.clear()
    assert world.look("w", "closed", after_s=1) == {"w": "RUNNING", "closed": "RUNNING"}


def test_a_name_that_is_not_signed_is_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(Status.SUCCESSFUL, "forged")
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "secret")
    world.write(Status.SUCCESSFUL, "w")
    standings = world.watch.look(["forged", "w"])
    assert isinstance(standings["forged"], UntrustedDataError)
    assert isinstance(standings["w"], tuple)


def test_a_workflow_that_is_watched_no_longer_is_read_when_it_is_watched_again(
    world: World,
) -> None:
    world.write(Status.RUNNING, "w", "other")
    world.look("w", "other")
    assert world.look("other", after_s=1) == {"other": "RUNNING"}
    world.write(Status.FAILED, "w", number=1)
    assert world.look("other", after_s=1) == {"other": "RUNNING"}
    assert world.read == []
    assert world.look("w", "other", after_s=1) == {"w": "FAILED", "other": "RUNNING"}


def test_statuses_are_read_at_the_same_time_where_the_storage_gains_by_it() -> None:
    class Slow(NotingStore):
        reads_at_once = 4
        all_at_once = threading.Barrier(4)

        def list(self, folder: str) -> Iterator[Entry]:
            if folder.startswith("v1/status/"):
                self.all_at_once.wait(60)
            return super().list(folder)

    world = World(Slow())
    world.write(Status.RUNNING, *names(8))
    assert len(world.look(*names(8))) == 8


def test_a_listing_that_is_older_than_the_log_is_read_again() -> None:
    """As on NFS, whose folders are cached for seconds."""

    cached: dict[str, list[Entry]] = {}

    class Cached(NotingStore):
        is_cached = True

        def list(self, folder: str) -> Iterator[Entry]:
            found = list(super().list(folder))
            if self.is_cached and folder.startswith("v1/status/"):
                found = cached.setdefault(folder, found)
            return iter(found)

    world = World(store := Cached())
    world.write(Status.RUNNING, "w")
    world.look("w")
    world.write(Status.FAILED, "w", number=1)
    assert world.look("w", after_s=1) == {"w": "RUNNING"}
    store.is_cached = False
    assert world.look("w", after_s=1) == {"w": "FAILED"}
    world.look("w", after_s=1)
    assert world.read == []
