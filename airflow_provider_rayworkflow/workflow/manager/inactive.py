"""Operations on inactive workflows: those that no manager runs."""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowNotFoundError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.manager.http_events import HttpEvents
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, Stop, status_after
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow


class InactiveWorkflows:
    """What one manager does with workflows that have ended, or whose manager is gone.

    :param locks: no two calls about the same workflow are under way at once.
    :param http_events: forgets what it knows of a workflow that is deleted.
    """

    def __init__(self, known: Registry, *, locks: Locks, http_events: HttpEvents) -> None:
        self._known = known
        self._locks = locks
        self._http_events = http_events

    async def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises WorkflowStillActiveError: when it is running or pending.
        """
        async with self._locks.of(workflow_id):
            found = await self._known.in_thread(self._known.find_name, workflow_id)
            if workflow_id in self._known.live:
                raise WorkflowStillActiveError("DELETE", workflow_id)
            if found is None:
                raise WorkflowNotFoundError(workflow_id)
            await self._known.in_thread(self._delete, found)
            self._http_events.forget(workflow_id)

    async def end(self, workflow_id: str, reason: Stop) -> None:
        """Cancel or suspend a workflow, whose lock the caller has; see :meth:`Manager.cancel`."""
        found = await self._known.in_thread(self._known.find, workflow_id)
        if found is None:
            raise WorkflowNotFoundError(workflow_id)
        if found.status.is_active:
            raise WorkflowStillActiveError(reason.value.upper(), workflow_id)
        target = status_after(Outcome(stopped=reason))
        if found.status is not target:
            await self._known.in_thread(self._change_status, found, target)

    async def fork(self, workflow_id: str, new_workflow_id: str, *, from_task: str = "") -> None:
        """Make a new workflow from the finished checkpoints of another one; errors as :func:`fork`."""
        async with self._locks.of(new_workflow_id):
            await self._known.in_thread(
                lambda: fork(
                    self._known.store,
                    workflow_id,
                    new_workflow_id,
                    from_task=from_task,
                    now=self._known.clock(),
                )
            )

    async def prune(
        self, *, older_than_s: float, statuses: Collection[str], keep_outputs: bool, dry_run: bool
    ) -> list[str]:
        """Delete workflows that ended long ago, as :func:`prune`; returns their ids."""
        pruned = await self._known.in_thread(
            lambda: prune(
                self._known.store,
                older_than_s=older_than_s,
                now=self._known.clock(),
                statuses=statuses,
                keep_outputs=keep_outputs,
                dry_run=dry_run,
            )
        )
        for one in pruned:
            self._http_events.forget(one.workflow_id)
        return [one.workflow_id for one in pruned]

    def _change_status(self, found: StoredWorkflow, status: WorkflowStatus) -> None:
        lifecycle.change_status(
            self._known.store,
            found,
            status,
            manager_id=self._known.manager_id,
            now=self._known.clock(),
            waits=True,
        )

    def _delete(self, found: StoredWorkflow) -> None:
        lifecycle.delete(
            self._known.store,
            found,
            manager_id=self._known.manager_id,
            now=self._known.clock(),
            waits=True,
        )
