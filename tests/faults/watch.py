"""Looks at the storage all the time that a run takes: what is committed when, and who lives when."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.leases import Process
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

_INTERVAL_S = 0.1


class Watch:
    """A thread that looks, from ``with`` to the end of it.

    :ivar committed: by workflow and task id: when each task was first seen to be committed, and
        under which epoch.
    :ivar last_alive: when each manager's process was last seen alive.
    :ivar dishonest: statuses that said RUNNING or PENDING when no manager ran the workflow.
    :ivar looks: how often it has looked at everything.
    """

    def __init__(self, store: WorkflowStore, workflow_ids: Sequence[str]) -> None:
        self._store = store
        self._statuses = StatusReader(store)
        self._ids = workflow_ids
        self._processes: dict[str, Process] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_until_done, daemon=True)
        self.committed: dict[tuple[str, str], tuple[float, int]] = {}
        self.last_alive: dict[str, float] = {}
        self.dishonest: list[str] = []
        self.looks = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def _look_until_done(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            try:
                self._look()
            except StorageError:
                continue  # the server is down, or an object has been replaced: look again

    def _look(self) -> None:
        for lease in self._store.leases.list_all():
            self._processes[lease.manager_id] = lease.process
        now = time.time()
        for manager_id, process in self._processes.items():
            if not process.is_gone():
                self.last_alive[manager_id] = now
        for workflow_id in self._ids:
            self._look_at(workflow_id)
        self.looks += 1

    def _look_at(self, workflow_id: str) -> None:
        records = self._store.read_checkpoints(workflow_id).records
        seen_at = time.time()  # so it was committed before
        for task_id, record in records.items():
            self.committed.setdefault((workflow_id, task_id), (seen_at, record.epoch))
        found = self._statuses.read(workflow_id)
        if found is None or not found.status.is_active:
            return
        owner = self._processes.get(found.record.manager_id)
        if owner is not None and owner.is_gone():
            # It may have died since that look; a look now has to notice it.
            again = self._statuses.read(workflow_id)
            if again is not None and again.status.is_active and again.record == found.record:
                self.dishonest.append(f"{workflow_id} is {again.status}, and its owner is dead")
