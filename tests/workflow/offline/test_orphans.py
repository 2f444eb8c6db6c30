"""Leases that killed managers have left go in the end; those of living ones stay, whatever clocks say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_rayworkflow.workflow.offline import orphans
from airflow_provider_rayworkflow.workflow.offline.orphans import delete_dead_leases
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.leases import (
    LEASE_TTL_S,
    Lease,
    LeaseWatch,
    Process,
)

ELSEWHERE = Process(host="elsewhere", machine="other/1", pid=1, started="1")


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

    monkeypatch.setattr(orphans.time, "sleep", sleep)
    assert delete_dead_leases(store, before=2.0) == 1
    assert {lease.manager_id for lease in store.leases.list_all()} == {"wrong clock", "young"}


def test_where_no_lease_is_old_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orphans.time, "sleep", lambda _: pytest.fail("it waits"))
    assert delete_dead_leases(WorkflowStore(MemoryStore()), before=2.0) == 0
