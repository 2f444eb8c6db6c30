"""Names that programs for Ray Workflows import from ``ray.workflow.common``."""

from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

#: The Serve application that takes HTTP events; its routes are below ``/event``.
HTTP_EVENT_PROVIDER_NAME = "WorkflowHttpEventProvider"

__all__ = ["HTTP_EVENT_PROVIDER_NAME", "WorkflowStatus"]
