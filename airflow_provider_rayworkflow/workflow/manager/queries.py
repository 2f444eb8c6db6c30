"""Answers for all workflows of a cluster, those that run elsewhere and those that have ended too."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    OwnershipLostError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow, Output
from airflow_provider_rayworkflow.workflow.manager.http_events import Reception
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.records import Result, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.describe import describe_task, describe_workflow
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot

Json = dict[str, Any]


class Queries:
    """What callers of one manager ask.

    :param resume: resumes a workflow by its id.
    """

    def __init__(self, known: Registry, *, resume: Callable[[str], Awaitable[None]]) -> None:
        self._known = known
        self._resume = resume

    async def get_status(self, workflow_id: str) -> WorkflowStatus:
        """The honest status.

        :raises WorkflowNotFoundError: when there is no such workflow.
        """
        if (live := self._known.live.get(workflow_id)) is not None:
            return live.record.status
        found = await self._known.in_thread(self._known.read_status, workflow_id)
        if found is None:
            raise WorkflowNotFoundError(workflow_id)
        return found.status

    async def reception(self, workflow_id: str) -> Reception:
        """Whether a workflow can get an event."""
        if workflow_id in self._known.live:
            return "open"
        found = await self._known.in_thread(self._known.find_name, workflow_id)
        if found is None:
            return "unknown"
        ended = (WorkflowStatus.SUCCESSFUL, WorkflowStatus.CANCELED)
        return "ended" if found.status in ended else "open"

    async def list_all(
        self, statuses: Collection[WorkflowStatus]
    ) -> list[tuple[str, WorkflowStatus]]:
        """Ids and honest statuses of the workflows that have one of these statuses.

        Of the RESUMABLE ones, those that were running come before those that were waiting.
        """
        return await self._known.in_thread(self._known.list_with_status, statuses)

    async def list_page(
        self, chosen: ListFilter, *, size: int, after: str = ""
    ) -> tuple[list[tuple[str, WorkflowStatus]], str]:
        """One page of the workflows that a filter selects: :meth:`Registry.list_page`.

        :raises ValueError: when ``after`` begins no page.
        """
        page = functools.partial(self._known.list_page, chosen, size=size, after=after)
        return await self._known.in_thread(page)

    async def get_metadata(self, workflow_id: str, task_id: str | None = None) -> Json:
        """What :func:`describe_workflow` tells of a workflow, or :func:`describe_task` of one of its tasks.

        :raises ValueError: when there is no such workflow or task.
        """
        live = self._known.live.get(workflow_id)
        record = (
            live.record
            if live
            else await self._known.in_thread(self._known.read_status, workflow_id)
        )
        if record is None:
            raise ValueError(f"No such workflow_id '{workflow_id}'")
        if task_id is None:
            return describe_workflow(record)
        return await self._known.in_thread(describe_task, self._known.store, record, task_id)

    async def wait_output(
        self, workflow_id: str, task_id: str | None = None, *, take_over: bool = False
    ) -> Output:
        """Wait until a workflow has ended, or one of its tasks has its result.

        :param take_over: resume it here if the manager that runs it elsewhere dies.
        :raises OwnershipLostError: when it was deleted while it ran here.
        :raises ValueError: when there is no such workflow, or it ended without such a result.
        """
        while True:
            live = self._known.live.get(workflow_id)
            if live is not None and task_id is None:
                try:
                    return await asyncio.shield(live.ended)
                except OwnershipLostError as exc:
                    if exc.is_deleted:
                        raise
            elif live is not None and task_id is not None:
                output = await self._wait_task(live, task_id)
                if output is not None:
                    return output
                if live.lost is not None and live.lost.is_deleted:
                    raise live.lost
            stored = await self._known.in_thread(self._known.store.read_status, workflow_id)
            if stored is None:
                raise ValueError(f"No such workflow_id '{workflow_id}'")
            if workflow_id in self._known.live:
                continue  # it began while we looked
            found = await self._known.in_thread(self._known.found, stored)
            if take_over and found.has_lost_owner:
                await self._resume(workflow_id)
                continue
            if not found.status.is_active and not found.owner_may_live:
                record = found.honest_record
                return await self._known.in_thread(self._stored_output, record, task_id)
            await asyncio.sleep(self._known.intervals.watch_s)

    async def _wait_task(self, live: HeldWorkflow, task_id: str) -> Output | None:
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        live.waiters[task_id].append(waiter)
        try:
            held = live.executor.result_of(task_id) if live.executor else None
            stored = held or await self._known.in_thread(self._stored_result, live.record, task_id)
            if stored is None:
                await asyncio.wait([waiter])
                if waiter.cancelled():
                    return None
                stored = waiter.result()
            return Output(
                workflow_id=live.claim.workflow_id, status=live.record.status, result=stored
            )
        finally:
            live.waiters[task_id].remove(waiter)
            if not live.waiters[task_id]:
                del live.waiters[task_id]

    def _stored_result(self, record: StatusRecord, task_id: str) -> Result | None:
        return read_snapshot(self._known.store, record).result_of(task_id)

    def _stored_output(self, record: StatusRecord, task_id: str | None) -> Output:
        workflow_id = record.workflow_id
        snapshot = read_snapshot(self._known.store, record)
        output = Output(workflow_id=workflow_id, status=record.status)
        if task_id is not None:
            result = snapshot.result_of(task_id)
            if result is not None:
                return replace(output, result=result)
            if record.failure is None:
                snapshot.raise_damage()
                raise ValueError(
                    f"Cannot load output from task id '{task_id}' in workflow '{workflow_id}'"
                )
        if record.status is WorkflowStatus.SUCCESSFUL:
            if snapshot.output is None:
                snapshot.raise_damage()
                raise ValueError(f"Cannot load output from workflow '{workflow_id}'")
            return replace(output, result=snapshot.output)
        if record.failure is None:
            return output
        failures = snapshot.checkpoints.failures
        own = failures.get(task_id) if task_id else None
        failed = own or failures.get(record.failure.task_id)
        exception = failed.result.inline if failed and failed.result else None
        failure = own.failure if own else record.failure
        return replace(output, failure=failure or record.failure, exception=exception or b"")
