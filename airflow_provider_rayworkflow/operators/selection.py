"""Which workflows a management operator means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.tries.definition import check_id
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.hooks import RayWorkflowHook


def check_selection(workflow_id: Any, statuses: Any, valid: Sequence[WorkflowStatus]) -> None:
    """Return if one of the two says which workflows are meant; for an operator's constructor.

    :raises ValueError: if not.
    """
    if (workflow_id is None) == (statuses is None):
        raise ValueError("Give either workflow_id or statuses.")
    if statuses is not None:
        if isinstance(statuses, str) or not statuses:
            raise ValueError(f"statuses must be a list of statuses, not {statuses!r}.")
        for status in statuses:
            if status not in valid:
                raise ValueError(
                    f"{str(status)!r} is not a status to select by here. Valid ones are "
                    f"{[status.value for status in valid]}."
                )


def select(
    hook: RayWorkflowHook,
    *,
    workflow_id: str | Sequence[str] | None,
    statuses: Sequence[str] | None,
    id_prefix: str = "",
) -> list[str]:
    """The ids that are meant.

    :raises RayWorkflowInputError: for an id that can't be one.
    :raises RayWorkflowStorageError: when the storage can't be read.
    """
    if workflow_id is not None:
        ids = [workflow_id] if isinstance(workflow_id, str) else workflow_id
        if not isinstance(ids, (list, tuple)):
            raise RayWorkflowInputError(f"workflow_id must be an id or a list, not {ids!r:.200}.")
        return [check_id(each) for each in ids]
    wanted = {WorkflowStatus(status) for status in statuses or ()}
    return [name for name in hook.list_ids(wanted) if name.startswith(id_prefix)]
