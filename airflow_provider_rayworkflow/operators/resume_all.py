"""The operator that resumes what was interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowNotResumedError,
    RayWorkflowQueueFullError,
    RayWorkflowStartError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.clusters.engine import ManagerHost, RayEngine
    from airflow_provider_rayworkflow.hooks import RayWorkflowHook


class RayWorkflowResumeAllOperator(BaseOperator):
    """Resume all workflows of the connection's storage that were interrupted.

    Those whose cluster was lost, for example. The task is successful when the manager has them all; they
    go on there. Workflows of which a task instance waits may be among them: it attaches.

    XCom: the ids of the resumed workflows.

    :param include_failed: also those that an error of their own ended.
    :param poll_interval_s: how often to look for the manager's answers, in seconds.
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. (templated)
    :param unreachable_timeout_s: how long to keep retrying a cluster that can't be reached.
    """

    template_fields: Sequence[str] = ("ray_workflow_conn_id",)
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        include_failed: bool = False,
        poll_interval_s: float = 1.0,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        unreachable_timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.include_failed = include_failed
        self.poll_interval_s = poll_interval_s
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.unreachable_timeout_s = unreachable_timeout_s

    def execute(self, context: Context) -> list[str]:
        """Resume them.

        :raises RayWorkflowNotResumedError: when that failed for some; the others go on.
        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        """
        from airflow_provider_rayworkflow.clusters.hosts import host_of
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        hook.use_signing_secret()
        statuses = {WorkflowStatus.RESUMABLE}
        if self.include_failed:
            statuses.add(WorkflowStatus.FAILED)
        before = hook.list_ids(statuses)
        if not before:
            self.log.info("There is nothing to resume")
            return []
        hook.check_storage()
        self._resume(hook, before, host_of(hook))
        # A resume by anyone raises the epoch; a workflow may be deleted by now.
        after = hook.list_ids(set(WorkflowStatus))
        missed = [name for name, epoch in before.items() if after.get(name) == epoch]
        resumed = [name for name in before if name not in missed]
        self.log.info("%d workflows are resumed, %d are not", len(resumed), len(missed))
        if missed:
            raise RayWorkflowNotResumedError(missed)
        return resumed

    def _resume(
        self, hook: RayWorkflowHook, workflow_ids: Iterable[str], host: ManagerHost
    ) -> None:
        """Have the manager go on with them, and return when it has answered for all."""
        from airflow_provider_rayworkflow.clusters.hosts import engine_for
        from airflow_provider_rayworkflow.tries.run_spec import RunSpec
        from airflow_provider_rayworkflow.workflow.model.records import StartOptions
        from airflow_provider_rayworkflow.workflow.storage.mailbox import ANYBODY

        engines = [
            engine_for(
                hook,
                RunSpec(workflow_id=workflow_id),
                host=host,
                token=ANYBODY,
                unreachable_timeout_s=self.unreachable_timeout_s,
            )
            for workflow_id in workflow_ids
        ]
        try:
            for engine in engines:
                engine.submit(StartOptions())
            while engines := [engine for engine in engines if not self._has_answer(engine)]:
                time.sleep(self.poll_interval_s)
        finally:
            for engine in engines:  # else a manager that is started some day would resume them
                self._take_back(engine)
            host.close()

    def _take_back(self, engine: RayEngine) -> None:
        try:
            engine.withdraw()
        except (
            RayWorkflowStorageError
        ) as exc:  # the others are taken back, and the first error counts
            self.log.warning("A submission could not be taken back: %s", exc)

    def _has_answer(self, engine: RayEngine) -> bool:
        try:
            return engine.has_begun()
        except (RayWorkflowInputError, RayWorkflowQueueFullError, RayWorkflowStartError) as exc:
            self.log.warning("%s", exc)
            return True
