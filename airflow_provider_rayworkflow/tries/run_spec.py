"""What one try of a task instance asks for, on its way from the operator to where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import OnChange, OnFailure

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """One workflow, as an operator wants it run.

    :ivar definition: its function with arguments; None for the stored graph.
    :ivar metadata: JSON, for a workflow that starts from scratch.
    :ivar runtime_env: Ray's, for the workflow's tasks; None for none.
    :ivar limits: of the cluster's manager; what is unset stays as it is there.
    :ivar on_change: what a resume does with committed tasks that have changed.
    :ivar on_failure: what becomes of the other tasks when one has failed; None: as in the run before.
    """

    workflow_id: str
    definition: WorkflowDefinition | None = None
    metadata: Json = field(default_factory=dict)
    runtime_env: Json | None = None
    limits: Limits = field(default_factory=Limits)
    on_change: OnChange = "reuse"
    on_failure: OnFailure | None = None
