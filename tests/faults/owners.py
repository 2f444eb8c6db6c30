"""Signals to the processes of a run: workers, and the managers that own its workflows or read its submissions."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import processes
from runs import Run

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.leases import Lease


def kill_process(run: Run, pid: int) -> None:
    run.faults += processes.send(pid, signal.SIGKILL)


def kill_owners(run: Run, *, counts: bool = True) -> None:
    """Kill the processes of all managers that own workflows of the run, in all clusters."""
    killed = signal_owners(run, signal.SIGKILL)
    run.faults += len(killed) if counts else 0


def signal_owners(run: Run, number: int) -> list[int]:
    """Send a signal to the managers that own workflows of the run; their processes."""
    owners = {
        found.record.manager_id
        for found in run.found().values()
        if found is not None and found.status in (WorkflowStatus.RUNNING, WorkflowStatus.PENDING)
    }
    return _signal(number, (lease for lease in _leases(run) if lease.manager_id in owners))


def kill_readers(run: Run, cluster: str) -> int:
    """Kill the manager of a cluster, whatever it owns; how many were killed.

    :param cluster: the id that submissions for it carry.
    """
    return len(
        _signal(signal.SIGKILL, (lease for lease in _leases(run) if lease.cluster == cluster))
    )


def _leases(run: Run) -> Iterable[Lease]:
    return run.world.store().leases.list_all()


def _signal(number: int, leases: Iterable[Lease]) -> list[int]:
    return [
        lease.process.pid
        for lease in leases
        if not lease.process.is_gone() and processes.send(lease.process.pid, number)
    ]
