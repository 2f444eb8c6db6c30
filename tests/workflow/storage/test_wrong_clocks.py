"""Hosts whose clocks are wrong by days or years: lists and watchers of ends stay right."""

from __future__ import annotations

import pytest
from agreement import check_lists, fresh
from change_log_rows import NoNotes
from sample_records import status_record

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.index_updates import take_over

DAY_S = 86_400.0
NOW = 20_000 * DAY_S
WRONG_DAYS = [-20_000, -400, -2, 2, 400]


class World:
    """A storage with an index. Each call says what the clock of its host says."""

    def __init__(self) -> None:
        self.bytes = MemoryStore()
        self.store = fresh(self.bytes).with_notes(NoNotes())
        rebuild(self.store, now=NOW)
        self.other = 0

    def write(
        self, workflow_id: str, status: Status, *, at: float = NOW, epoch: int = 1
    ) -> IndexRow:
        record = status_record(
            status, workflow_id, epoch=epoch, number=1, created_at=at, changed_at=at
        )
        self.store.write_status(record)
        return IndexRow.of(record, workflow_id)

    def ends(self, workflow_id: str, *, at: float = NOW) -> None:
        """A workflow ends on a host, whose manager lets the index have it."""
        self.take(self.write(workflow_id, Status.SUCCESSFUL, at=at), now=at)

    def take(self, *rows: IndexRow, now: float, since: int | None = None) -> None:
        changes = [Change(seq=seq, segment=row.segment, row=row) for seq, row in enumerate(rows)]
        since = self.store.index.last_version() if since is None else since
        assert take_over(self.store, changes, since=since, now=now, versions_kept=1) is not None

    def others_work(self, *, now: float) -> None:
        """A host takes over what does not matter here, and forgets what seems old to it."""
        for _ in range(5):
            self.other += 1
            self.take(self.write(f"other-{self.other}", Status.FAILED, at=now), now=now)

    def loses_index(self) -> None:
        self.bytes.delete_folder("v1/index")

    def watcher(self, *, now: float = NOW) -> Completions:
        store = fresh(self.bytes)
        return Completions(store, "w", statuses=(Status.SUCCESSFUL,), clock=lambda: now)


@pytest.fixture
def world() -> World:
    return World()


def looks(ends: Completions) -> list[str]:
    found = ends.look()
    ends.confirm(found)
    return [end.workflow_id for end in found]


@pytest.mark.parametrize("days", WRONG_DAYS)
def test_what_was_deleted_does_not_come_back_by_a_late_log(world: World, days: int):
    """A manager's log has its end; then it is deleted, and the index soon forgets that by a wrong clock."""
    row, since = world.write("w", Status.FAILED), world.store.index.last_version()
    log = ChangeLog(
        writer="visitor-late",
        changes=[Change(seq=1, segment="w", row=row)],
        seq=1,
        version=since,
    )
    world.store.changes.write(log)
    world.store.delete("w")
    world.take(IndexRow(segment="w", workflow_id="w", status=Status.NONE), now=NOW)
    world.others_work(now=NOW + days * DAY_S)
    there = {f"other-{number}": Status.FAILED for number in range(1, 6)}
    check_lists(fresh(world.bytes), there)
    world.take(row, now=NOW, since=since)
    world.store.changes.delete("visitor-late")
    check_lists(fresh(world.bytes), there)


@pytest.mark.parametrize("days", WRONG_DAYS)
def test_a_watcher_misses_no_end_that_the_index_has_forgotten_early(world: World, days: int):
    assert looks(world.watcher()) == []
    world.ends("w")
    world.others_work(now=NOW + days * DAY_S)
    assert looks(world.watcher()) == ["w"]
    assert looks(world.watcher()) == []


@pytest.mark.parametrize("days", WRONG_DAYS)
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_watcher_sees_each_end_once_where_the_index_is_made_anew_by_a_wrong_clock(
    world: World, days: int, is_lost: bool
):
    world.ends("before")
    goes_on = world.watcher()
    assert looks(goes_on) == []
    world.ends("seen")
    assert looks(goes_on) == ["seen"]
    world.ends("missed")
    if is_lost:
        world.loses_index()
    rebuild(world.store, now=NOW + days * DAY_S)
    assert looks(goes_on) == ["missed"]
    assert looks(world.watcher()) == []
    world.ends("later")
    for ends in (goes_on, world.watcher()):
        assert looks(ends) == (["later"] if ends is goes_on else [])
    world.others_work(now=NOW + days * DAY_S)
    world.ends("last")
    assert looks(world.watcher()) == ["last"]


@pytest.mark.parametrize("days", WRONG_DAYS)
def test_the_clock_of_a_watcher_makes_no_end_come_twice_and_none_be_missed(world: World, days: int):
    """It is wrong for a while, and then it is right again."""
    assert looks(world.watcher()) == []
    for number, now in enumerate([NOW, NOW + days * DAY_S, NOW]):
        world.ends(f"w{number}")
        assert looks(world.watcher(now=now)) == [f"w{number}"]
        world.ends(f"missed{number}")
        rebuild(world.store, now=NOW)
        assert looks(world.watcher(now=now)) == [f"missed{number}"]


def test_a_manager_whose_clock_is_ahead_for_years_makes_no_end_come_twice(world: World):
    """It is also ahead of the ends before the first look."""
    world.ends("before", at=NOW + 1000 * DAY_S)
    assert looks(world.watcher()) == []
    world.ends("ahead", at=NOW + 1000 * DAY_S)
    assert looks(world.watcher()) == ["ahead"]
    for number in range(5):
        now = NOW + number * DAY_S
        world.ends(f"w{number}", at=now)
        rebuild(world.store, now=now)
        assert looks(world.watcher(now=now)) == [f"w{number}"]
