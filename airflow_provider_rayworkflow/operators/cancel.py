"""The operator that cancels workflows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowNotFoundError,
    RayWorkflowStillActiveError,
)
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.operators.selection import check_selection, select
from airflow_provider_rayworkflow.workflow.exceptions import IllegalTransitionError
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

_VALID = [
    WorkflowStatus.PENDING,
    WorkflowStatus.RUNNING,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
]


class RayWorkflowCancelOperator(BaseOperator):
    """Stop workflows for good, also those that a program started or that run elsewhere.

    All of it goes through the storage: neither Ray nor the cluster need be reachable. An
    inactive workflow is canceled at once; its manager cancels a running one within seconds.

    XCom: the ids that were canceled.

    :param workflow_id: one, or a list. (templated)
    :param statuses: instead: all that have one of these, of PENDING, RUNNING, FAILED, RESUMABLE.
    :param id_prefix: with ``statuses``: only ids that begin so. (templated)
    :param missing_ok: an id under which nothing is stored is no error.
    :param timeout_s: how long to wait for the managers that run them.
    :param poll_interval_s: how often the storage is asked meanwhile.
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
        missing_ok: bool = False,
        timeout_s: float = 300.0,
        poll_interval_s: float = 1.0,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_selection(workflow_id, statuses, _VALID)
        self.workflow_id = workflow_id
        self.statuses = statuses
        self.id_prefix = id_prefix
        self.missing_ok = missing_ok
        self.timeout_s = timeout_s
        self.poll_interval_s = poll_interval_s
        self.ray_workflow_conn_id = ray_workflow_conn_id

    def execute(self, context: Context) -> list[str]:
        """Cancel them, and return when they are.

        :raises RayWorkflowInputError: for one that was successful.
        :raises RayWorkflowNotFoundError: for one that does not exist.
        :raises RayWorkflowStillActiveError: when a manager does not obey in time.
        """
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        waiting = select(
            hook, workflow_id=self.workflow_id, statuses=self.statuses, id_prefix=self.id_prefix
        )
        canceled: list[str] = []
        deadline = time.monotonic() + self.timeout_s
        while True:
            still = [name for name in waiting if not self._is_done(hook, name, canceled)]
            if not still:
                return canceled
            if time.monotonic() > deadline:
                raise RayWorkflowStillActiveError(
                    still[0],
                    f"should be canceled, and its manager has not done so in {self.timeout_s:g} s. "
                    "The request stays in the storage",
                )
            waiting = still
            time.sleep(self.poll_interval_s)

    def _is_done(self, hook: RayWorkflowHook, workflow_id: str, canceled: list[str]) -> bool:
        try:
            status = hook.cancel(workflow_id)
        except RayWorkflowNotFoundError:
            if self.missing_ok or self.statuses:
                return True
            raise
        except IllegalTransitionError as exc:
            if self.statuses:
                return True  # it has ended since it was listed
            raise RayWorkflowInputError(
                f"Workflow {workflow_id!r} has been successful: there is nothing to cancel."
            ) from exc
        if status is not WorkflowStatus.CANCELED:
            return False
        self.log.info("Workflow %s is canceled", escaped(workflow_id))
        canceled.append(workflow_id)
        return True
