"""Statuses that could not be written when they were due: tried again until they are.

Until then the storage shows a workflow as running that runs nowhere, for as long as the manager lives.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord

log = get_logger(__name__)


class StatusBacklog:
    """The statuses that one manager still has to write.

    :param locks: keep a workflow from beginning while its late status is written.
    """

    def __init__(self, known: Registry, locks: Locks) -> None:
        self._known = known
        self._locks = locks
        self._due: dict[str, tuple[StatusRecord, StatusRecord | None]] = {}
        self._writing: asyncio.Task[None] | None = None

    def add(self, record: StatusRecord, *, replaces: StatusRecord | None) -> None:
        """Write a status as soon as that works, unless the workflow has gone on by then.

        :param replaces: what is written there now, None for nothing.
        """
        self._due[record.workflow_id] = (record, replaces)
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_all())

    async def _write_all(self) -> None:
        while self._due:
            await asyncio.sleep(self._known.intervals.retry_s)
            for workflow_id in list(self._due):
                async with self._locks.of(workflow_id):
                    await self._write(workflow_id)
        self._writing = None

    async def _write(self, workflow_id: str) -> None:
        due = record, replaces = self._due[workflow_id]

        def write() -> bool:
            store = self._known.store
            if self._known.tenure.is_over or store.last_epoch(workflow_id) != record.epoch:
                return False
            current = store.read_status(workflow_id)
            if current is not None and _is_of_same_run(current, record):
                # A write that failed, or so it seemed, has arrived.
                if not current.status.is_active:
                    return False
                late = replace(record, number=max(record.number, current.number + 1))
                store.write_status(late, replaces=current)
                return True
            if current != replaces:
                return False
            store.write_status(record, replaces=replaces)
            return True

        try:
            was_written = await self._known.in_thread(write)
        except Exception as exc:  # the loop must live: other statuses are due as well
            log.warning(
                "Workflow %s: its status can't be written yet: %s",
                *(workflow_id, said_by(exc)),
            )
            return
        if self._due[workflow_id] is due:  # a later run may have left another one meanwhile
            del self._due[workflow_id]
        if was_written:
            log.info("Workflow status [%s]\t[%s], late", record.status, workflow_id)


def _is_of_same_run(current: StatusRecord, record: StatusRecord) -> bool:
    return (current.epoch, current.manager_id) == (record.epoch, record.manager_id)
