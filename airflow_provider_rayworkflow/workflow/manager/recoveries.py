"""How often restarted managers go on by themselves with a workflow that may be what ends them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotResumableError
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.scheduling.budgets import (
    MAX_LOSSES_IN_A_ROW,
    SHORT_ATTEMPT_S,
)
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile


def recoveries_of(earlier: Claim | None, files: Iterable[WorkflowFile], now: float) -> int:
    """How many recoveries in a row it makes to recover a workflow now; see :class:`Claim`.

    As for lost nodes, a row is of managers that died within ten minutes.

    :param earlier: the claim of the manager that is gone.
    :param files: what lies in the workflow's folder.
    :param now: in seconds since the epoch.
    :raises WorkflowNotResumableError: when there were so many that the next manager would die of it, too.
    """
    if earlier is None or now - earlier.claimed_at >= SHORT_ATTEMPT_S:
        return 1
    if any(file.kind == "journal" and file.epoch == earlier.epoch for file in files):
        return 1
    if earlier.recoveries >= MAX_LOSSES_IN_A_ROW:
        raise WorkflowNotResumableError(
            earlier.workflow_id,
            reason=f"The manager died {MAX_LOSSES_IN_A_ROW + 1} times in a row within "
            f"{SHORT_ATTEMPT_S / 60:g} minutes of going on with it, and nothing was committed in between. A task "
            "may take all the memory of the manager's node, or its graph that of the manager. It stays RESUMABLE.",
        )
    return earlier.recoveries + 1
