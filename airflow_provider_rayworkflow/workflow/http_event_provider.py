"""HTTP events: import it on its own; needs ``ray[serve]``."""

from airflow_provider_rayworkflow.workflow.common import HTTP_EVENT_PROVIDER_NAME
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowEventHandleError
from airflow_provider_rayworkflow.workflow.runtime.service.http_events import (
    HTTPEventProvider,
    HTTPListener,
    get_event_path,
    get_event_token,
)

__all__ = [
    "HTTP_EVENT_PROVIDER_NAME",
    "HTTPEventProvider",
    "HTTPListener",
    "WorkflowEventHandleError",
    "get_event_path",
    "get_event_token",
]
