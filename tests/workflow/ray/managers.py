"""The manager's actor, from outside: killed for good, or so that Ray restarts it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import processes
import ray
from witness import is_alive, wait_until

from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore


def manager_actor() -> Any:
    """The handle of the manager; None if no manager runs."""
    try:
        return manager_of()
    except ValueError:
        return None


def kill_manager() -> None:
    """End the manager for good, as the end of its cluster does."""
    handle = manager_actor()
    if handle is not None:
        ray.kill(handle, no_restart=True)
        wait_until(lambda: manager_actor() is None)


def crash_manager(root: Path) -> None:
    """Kill the process of the manager that stores there; Ray starts another one."""
    pid = manager_pid(root)
    processes.send(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))


def manager_pid(root: Path) -> int:
    """The process of the manager that stores there; waits until there is one."""
    store = WorkflowStore(LocalStore(root))

    def running() -> int | None:
        pids = [lease.process.pid for lease in store.leases.list_all()]
        return next((pid for pid in pids if is_alive(pid)), None)

    return int(wait_until(running))
