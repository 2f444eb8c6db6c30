"""Names that programs for Ray Workflows import from ``ray.workflow.common``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

#: The name of the Serve application that takes HTTP events, or the beginning of it: each storage of a cluster has one.
HTTP_EVENT_PROVIDER_NAME = "WorkflowHttpEventProvider"


@dataclass(frozen=True)
class WorkflowRef:
    """Names a task, and holds a reference to its result if there is one.

    A plain record: a task that is given one gets it as it is. Pass a node to pass a result.
    """

    task_id: str
    ref: Any = None


__all__ = ["HTTP_EVENT_PROVIDER_NAME", "WorkflowRef", "WorkflowStatus"]
