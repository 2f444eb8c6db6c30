"""A claim of a workflow: which manager executes it, and since which epoch checkpoints count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayworkflow.workflow.model.records import OnChange, OnFailure

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One epoch of a workflow: who owns it, and which graph it runs.

    :ivar graph_epoch: the epoch whose document has the graph.
    :ivar base_epoch: checkpoints of earlier epochs are of a run that was given up.
    :ivar on_change: what becomes of committed tasks that have changed.
    :ivar on_failure: what becomes of the other tasks when one has failed.
    :ivar restarts: from which tasks the workflow was started again, each with the epoch of that:
        earlier checkpoints of the task, and of what depends on it, don't count.
    :ivar traceparent: the trace that its tasks' spans join, ``""`` for none.
    :ivar submission_id: the latest submission that a manager has claimed the workflow for, ``""`` for
        none.
    :ivar submission_epoch: the epoch of that claim; 0 for none.
    :ivar recoveries: how many claims in a row, this one included, restarted managers have made by themselves of a
        workflow whose former manager had just begun with it and committed nothing.
    """

    workflow_id: str
    epoch: int
    manager_id: str
    claimed_at: float
    graph_epoch: int
    base_epoch: int
    user_metadata: Json
    on_change: OnChange = "reuse"
    on_failure: OnFailure = "stop"
    restarts: Mapping[str, int] = field(default_factory=dict)
    traceparent: str = ""
    submission_id: str = ""
    submission_epoch: int = 0
    recoveries: int = 0
