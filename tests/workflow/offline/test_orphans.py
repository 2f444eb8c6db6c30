"""What killed managers and ended clusters have left goes in the end; that of living ones stays, whatever clocks say."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sample_records

from airflow_provider_rayworkflow.workflow.offline import orphans
from airflow_provider_rayworkflow.workflow.offline.orphans import (
    delete_dead_leases,
    delete_dead_submissions,
)
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.archives import Archive, ArchiveStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.leases import (
    LEASE_TTL_S,
    Lease,
    LeaseWatch,
    Process,
)
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Submission

DAY_S = 24 * 3600.0
ELSEWHERE = Process(host="elsewhere", machine="other/1", pid=1, started="1")


def its_time(sleep: Callable[[float], object]) -> SimpleNamespace:
    """For the module alone: threads of other tests sleep as they like."""
    return SimpleNamespace(time=time.time, sleep=sleep)


def test_a_lease_goes_only_if_it_is_not_renewed_while_it_is_watched(
    monkeypatch: pytest.MonkeyPatch,
):
    store, clock = WorkflowStore(MemoryStore()), [0.0]
    store.leases.watch = LeaseWatch(lambda: clock[0])
    killed = Lease(manager_id="killed", actor_id="a", process=ELSEWHERE, renewed_at=1.0)
    wrong_clock = replace(killed, manager_id="wrong clock")
    young = replace(killed, manager_id="young", renewed_at=3.0)
    for lease in (killed, wrong_clock, young):
        store.leases.write(lease)

    def sleep(seconds: float) -> None:
        assert seconds == LEASE_TTL_S
        clock[0] += seconds
        store.leases.write(replace(wrong_clock, renewals=1))

    monkeypatch.setattr(orphans, "time", its_time(sleep))
    assert delete_dead_leases(store, before=2.0) == 1
    assert {lease.manager_id for lease in store.leases.list_all()} == {"wrong clock", "young"}


def test_where_no_lease_is_old_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orphans, "time", its_time(lambda _: pytest.fail("it waits")))
    assert delete_dead_leases(WorkflowStore(MemoryStore()), before=2.0) == 0


def submission(cluster: str, submitted_at: float) -> Submission:
    return sample_records.submission(
        workflow_id=f"on {cluster}",
        submission_id=f"at {submitted_at:g}",
        submitted_at=submitted_at,
        cluster=cluster,
    )


def test_what_was_submitted_long_ago_to_a_cluster_without_a_manager_goes():
    store = WorkflowStore(MemoryStore())
    mailbox = Mailbox(store.bytes)
    for cluster in ("gone", "here"):
        for submitted_at in (1.0, 3.0):
            mailbox.write_submission(submission(cluster, submitted_at))
    store.bytes.put(keys.submission_key("damaged", "s"), b"torn")
    store.leases.write(
        Lease(manager_id="m", actor_id="a", process=ELSEWHERE, renewed_at=1.0, cluster="here")
    )
    assert delete_dead_submissions(store, before=2.0) == 1
    left = mailbox.list_submissions()
    assert keys.submission_key("damaged", "s") in left
    left.remove(keys.submission_key("damaged", "s"))
    found = [mailbox.read_submission(key) for key in left]
    assert sorted((one.cluster, one.submitted_at) for one in found) == [
        ("gone", 3.0),
        ("here", 1.0),
        ("here", 3.0),
    ]


@pytest.mark.parametrize(("age_days", "is_left"), [(2, True), (4, False)])
def test_prune_takes_a_submission_for_a_dead_cluster_along_with_its_archives(
    monkeypatch: pytest.MonkeyPatch, age_days: int, is_left: bool
):
    """Its try was killed, and so was the manager that was to take it."""
    now = 1_000 * DAY_S
    store, clock = WorkflowStore(MemoryStore()), [0.0]
    store.leases.watch = LeaseWatch(lambda: clock[0])
    patched = its_time(lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr(orphans, "time", patched)
    submitted_at = now - age_days * DAY_S
    killed = Lease(
        manager_id="m", actor_id="a", process=ELSEWHERE, renewed_at=submitted_at, cluster="gone"
    )
    store.leases.write(killed)
    mailbox, archives = Mailbox(store.bytes), ArchiveStore(store.bytes)
    archive = Archive.of(b"code")
    archives.use("on gone", archive, now=submitted_at)
    mailbox.write_submission(submission("gone", submitted_at))
    prune(store, older_than_s=3600.0, now=now)
    assert bool(mailbox.list_submissions()) is is_left
    assert bool(list(store.bytes.list(keys.ARCHIVE_USES))) is is_left
    assert store.leases.list_all() == []
