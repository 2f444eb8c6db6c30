"""The operator that keeps the storage from growing without end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.workflow.offline.prune import PRUNED_BY_DEFAULT, check_statuses

if TYPE_CHECKING:
    from airflow.sdk import Context


class RayWorkflowPruneOperator(BaseOperator):
    """Delete workflows that ended long ago, for a DAG that cleans up regularly.

    It needs the storage only. What is running or pending is never deleted, and neither is what
    has begun again meanwhile.

    XCom: the ids of what was pruned (with ``dry_run``, of what would be).

    :param older_than: since they ended (or began, if they have no end).
    :param statuses: which ones, of SUCCESSFUL, FAILED, RESUMABLE, CANCELED; RESUMABLE ones only
        if asked for.
    :param keep_outputs: of successful ones keep status, graph and output, and delete the other
        checkpoints.
    :param dry_run: only say which ones.
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. (templated)
    """

    template_fields: Sequence[str] = ("ray_workflow_conn_id",)
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        older_than: timedelta,
        statuses: Sequence[str] = PRUNED_BY_DEFAULT,
        keep_outputs: bool = False,
        dry_run: bool = False,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(older_than, timedelta) or older_than < timedelta(0):
            raise ValueError(f"older_than must be a timedelta, not negative, not {older_than!r}.")
        check_statuses(statuses)
        self.older_than = older_than
        self.statuses = statuses
        self.keep_outputs = keep_outputs
        self.only_says = dry_run  # BaseOperator has a method dry_run
        self.ray_workflow_conn_id = ray_workflow_conn_id

    def execute(self, context: Context) -> list[str]:
        """Prune.

        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        pruned = RayWorkflowHook(self.ray_workflow_conn_id).prune(
            older_than_s=self.older_than.total_seconds(),
            statuses=self.statuses,
            keep_outputs=self.keep_outputs,
            dry_run=self.only_says,
        )
        verb = "would be pruned" if self.only_says else "are pruned"
        self.log.info("%d workflows %s: %s", len(pruned), verb, pruned[:100])
        return pruned
