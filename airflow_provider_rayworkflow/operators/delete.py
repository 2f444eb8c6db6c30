"""The operators that delete workflows from the storage: named ones, or all that ended long ago."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.exceptions import RayWorkflowNotFoundError
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.operators.selection import check_selection, select
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.retention import PRUNABLE
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import PRUNED_BY_DEFAULT

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

_VALID = [WorkflowStatus(status) for status in PRUNABLE]
# How many ids a line of the log has.
_SHOWN = 100


class RayWorkflowDeleteOperator(BaseOperator):
    """Delete all that is stored of workflows; their ids are then as new.

    It needs the storage only. What is running or pending is never deleted, and neither is what has begun
    again since it was found by its status. A task instance whose workflow is gone runs it from the
    start when it is cleared.

    XCom: the ids that were deleted (with ``dry_run``, that would be).

    :param workflow_id: one, or a list. (templated)
    :param statuses: instead: all that have one of these, of SUCCESSFUL, FAILED, RESUMABLE,
        CANCELED.
    :param id_prefix: with ``statuses``: only ids that begin so. (templated)
    :param older_than: with ``statuses``: only those whose last run has ended (or begun, if it has
        no end) longer ago than this.
    :param keep_outputs: with ``statuses``: of successful ones keep status, graph and output, and delete
        the other checkpoints.
    :param dry_run: with ``statuses``: only say which ones.
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
        keep_outputs: bool = False,
        dry_run: bool = False,
        missing_ok: bool = False,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_selection(workflow_id, statuses, _VALID)
        if statuses is None and (older_than is not None or keep_outputs or dry_run):
            raise ValueError("older_than, keep_outputs and dry_run go with statuses.")
        if older_than is not None:
            _check_age(older_than)
        self.workflow_id = workflow_id
        self.statuses = statuses
        self.id_prefix = id_prefix
        self.older_than = older_than
        self.keep_outputs = keep_outputs
        self.only_says = dry_run  # BaseOperator has a method dry_run
        self.missing_ok = missing_ok
        self.ray_workflow_conn_id = ray_workflow_conn_id

    def execute(self, context: Context) -> list[str]:
        """Delete them.

        :raises RayWorkflowNotFoundError: for one that does not exist.
        :raises RayWorkflowStillActiveError: for one that is running or pending; others before it
            are deleted.
        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        if self.statuses is None:
            ids = select(hook, workflow_id=self.workflow_id, statuses=None)
            deleted = [workflow_id for workflow_id in ids if self._delete(hook, workflow_id)]
        else:
            age = self.older_than
            deleted = hook.prune(
                older_than_s=None if age is None else age.total_seconds(),
                statuses=self.statuses,
                id_prefix=self.id_prefix,
                keep_outputs=self.keep_outputs,
                dry_run=self.only_says,
            )
        verb = "deleted or cut down to their outputs" if self.keep_outputs else "deleted"
        verb = f"would be {verb}" if self.only_says else f"are {verb}"
        shown = [escaped(workflow_id) for workflow_id in deleted[:_SHOWN]]
        self.log.info("%d workflows %s: %s", len(deleted), verb, shown)
        return deleted

    def _delete(self, hook: RayWorkflowHook, workflow_id: str) -> bool:
        try:
            hook.delete(workflow_id)
        except RayWorkflowNotFoundError:
            if self.missing_ok:
                return False
            raise
        return True


class RayWorkflowPruneOperator(RayWorkflowDeleteOperator):
    """Delete workflows that ended long ago, for a DAG that cleans up regularly.

    A :class:`RayWorkflowDeleteOperator` by age, whose other parameters it has, too. Events that came by
    HTTP so long ago for workflows that never began are deleted as well.

    :param older_than: since they ended (or began, if they have no end).
    :param statuses: RESUMABLE ones only if asked for.
    """

    def __init__(
        self, *, older_than: timedelta, statuses: Sequence[str] = PRUNED_BY_DEFAULT, **kwargs: Any
    ) -> None:
        _check_age(older_than)
        super().__init__(older_than=older_than, statuses=statuses, **kwargs)


def _check_age(older_than: Any) -> None:
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise ValueError(f"older_than must be a timedelta, not negative, not {older_than!r}.")
