"""Managers that sign with different keys, or one of them with none: they do not make the index anew in turns."""

from __future__ import annotations

import time
from collections.abc import Collection

import pytest
from agreement import check_lists
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.manager.index_keeper import IndexKeeper
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.change_notes import VisitorNotes
from airflow_provider_rayworkflow.workflow.storage.index_keys import INDEX_ROOTS
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S, Tenure
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs


class Keeper:
    """A manager with keys of its own, as far as it keeps the index."""

    def __init__(self, store: NotingStore, manager_id: str, keys: str) -> None:
        self.store = WorkflowStore(store, signing=SigningKeys.from_text(keys))
        self.known = Registry(
            self.store,
            manager_id=manager_id,
            clock=time.time,
            tenure=Tenure(LEASE_TTL_S, time.monotonic),
        )
        self.keeper = IndexKeeper(self.known)

    async def begin(self) -> None:
        await self.known.changes.open(0)
        self.store.leases.write(lease(self.known.manager_id))

    def reads_index(self) -> bool:
        try:
            return self.store.index.load() is not None
        except Exception:
            return False


async def keep_in_turns(keepers: Collection[Keeper]) -> None:
    for keeper in keepers:
        await keeper.begin()
    for _ in range(4):
        for keeper in keepers:
            await keeper.keeper.take_over()
    for keeper in keepers:
        keeper.known.threads.shutdown()


@pytest.mark.parametrize(("first", "second"), [("", "a"), ("a", "b"), ("a,b", "c,a")])
async def test_what_another_one_keeps_with_another_key_is_left_to_it(
    first: str, second: str, caplog: pytest.LogCaptureFixture
):
    store = NotingStore()
    keepers = [Keeper(store, "one", first), Keeper(store, "other", second)]
    await keep_in_turns(keepers)
    assert store.count("put_if_absent", INDEX_ROOTS) == 2  # the begin, and the index
    assert keepers[0].reads_index()
    reads_both = keepers[1].reads_index()
    assert reads_both == (second == "c,a")
    told = "Give all processes the same RAY_WORKFLOW_SIGNING_KEY, then run `rayworkflow reindex`"
    assert (told in caplog.text) != reads_both


async def test_an_index_from_before_there_was_a_key_is_made_anew_once():
    store = NotingStore()
    before = WorkflowStore(store, signing=SigningKeys())
    rebuild(before, now=1.0)
    store.calls.clear()
    keeper = Keeper(store, "m", "a")
    await keep_in_turns([keeper])
    assert store.count("put_if_absent", INDEX_ROOTS) == 1
    assert keeper.reads_index()


def test_a_log_without_a_signature_tells_which_statuses_to_read_and_makes_no_index_anew():
    bytes_ = NotingStore()
    store = WorkflowStore(bytes_, signing=SigningKeys.from_text("a"))
    rebuild(store, now=1.0)
    now = [0.0]
    left = LeftLogs(store, elapsed=lambda: now[0])
    stranger = WorkflowStore(bytes_, signing=SigningKeys())
    unsigned = VisitorNotes(stranger.changes, stranger.index)
    with unsigned.changing(["w"]):  # a process whose status is signed, and its log is not
        store.with_notes(unsigned).write_status(status_record(Status.FAILED, number=1))
    bytes_.calls.clear()
    for _ in range(3):
        left.take_over(2.0)
        now[0] += 1000.0
    assert bytes_.count("list", "v1/status/w") == 1
    assert ("list", "v1/status") not in bytes_.calls
    assert list(store.changes.writers()) == []
    check_lists(store, {"w": Status.FAILED})
