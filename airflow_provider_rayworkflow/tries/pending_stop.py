"""A retry may begin before the request of the try before, to suspend their workflow, is obeyed."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

log = get_logger(__name__)

# A manager looks for requests every two seconds; what runs is stopped then.
_MOST_WAIT_S = 30.0
_POLL_S = 0.5


def find_settled(
    hook: RayWorkflowHook, workflow_id: str, *, sleep: Callable[[float], object] = time.sleep
) -> StoredWorkflow | None:
    """What is stored of a workflow, as soon as it is not about to be suspended; None for nothing.

    A try that attached at once would own the workflow, and so make the request void: what has kept the try
    before from its end in time would go on.

    :param sleep: waits, in seconds. Where a manager does not obey within 30 s, the workflow is found as it is.
    :raises RayWorkflowStorageError: when the storage can't be read.
    """
    found = hook.find(workflow_id)
    for look in range(round(_MOST_WAIT_S / _POLL_S)):
        if found is None or not found.status.is_active or not hook.is_being_suspended(workflow_id):
            break
        if look == 0:
            log.info(
                "Workflow %s is being suspended for the try before: this one waits for that",
                workflow_id,
            )
        sleep(_POLL_S)
        found = hook.find(workflow_id)
    return found
