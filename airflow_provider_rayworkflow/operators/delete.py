"""The operator that deletes workflows from the storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowNotFoundError,
    RayWorkflowStillActiveError,
)
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.operators.selection import check_selection, select
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

_VALID = [
    WorkflowStatus.SUCCESSFUL,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
    WorkflowStatus.CANCELED,
]


class RayWorkflowDeleteOperator(BaseOperator):
    """Delete all that is stored of workflows; their ids are then as new.

    It needs the storage only. What is running or pending is never deleted. A task instance whose
    workflow is gone runs it from the start when it is cleared.

    XCom: the ids that were deleted.

    :param workflow_id: one, or a list. (templated)
    :param statuses: instead: all that have one of these, of SUCCESSFUL, FAILED, RESUMABLE,
        CANCELED.
    :param id_prefix: with ``statuses``: only ids that begin so. (templated)
    :param older_than: with ``statuses``: only those whose last run has ended (or begun, if it has
        no end) longer ago than this.
    :param missing_ok: an id under which nothing is stored is no error.
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. (templated)
    """

    template_fields: Sequence[str] = ("workflow_id", "id_prefix", "ray_workflow_conn_id")
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        workflow_id: str | list[str] | None = None,
        statuses: Sequence[str] | None = None,
        id_prefix: str = "",
        older_than: timedelta | None = None,
        missing_ok: bool = False,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_selection(workflow_id, statuses, _VALID)
        if older_than is not None and (statuses is None or older_than < timedelta(0)):
            raise ValueError("older_than goes with statuses, and is not negative.")
        self.workflow_id = workflow_id
        self.statuses = statuses
        self.id_prefix = id_prefix
        self.older_than = older_than
        self.missing_ok = missing_ok
        self.ray_workflow_conn_id = ray_workflow_conn_id

    def execute(self, context: Context) -> list[str]:
        """Delete them.

        :raises RayWorkflowNotFoundError: for one that does not exist.
        :raises RayWorkflowStillActiveError: for one that is running or pending; others before it
            are deleted.
        """
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        ids = select(
            hook,
            workflow_id=self.workflow_id,
            statuses=self.statuses,
            id_prefix=self.id_prefix,
            older_than=self.older_than,
        )
        deleted = [workflow_id for workflow_id in ids if self._delete(hook, workflow_id)]
        self.log.info("%d workflows are deleted", len(deleted))
        return deleted

    def _delete(self, hook: RayWorkflowHook, workflow_id: str) -> bool:
        try:
            hook.delete(workflow_id)
        except RayWorkflowNotFoundError:
            if self.missing_ok or self.statuses:
                return False
            raise
        except RayWorkflowStillActiveError:
            if self.statuses:
                return False  # it was resumed since it was listed
            raise
        self.log.info("Workflow %s is deleted", escaped(workflow_id))
        return True
