"""Durable workflows on Ray: the API of Ray Workflows (``ray.workflow``), carried on.

Importing this imports neither Ray nor pyarrow.
"""

from airflow_provider_rayworkflow.workflow import exceptions
from airflow_provider_rayworkflow.workflow.api import (
    cancel,
    continuation,
    delete,
    get_metadata,
    get_output,
    get_output_async,
    get_status,
    init,
    options,
    resume,
    resume_async,
    run,
    run_async,
    suspend,
)
from airflow_provider_rayworkflow.workflow.context import WorkflowContext, get_context
from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowCancellationError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
    WorkflowSuspendedError,
)
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

RUNNING = WorkflowStatus.RUNNING
PENDING = WorkflowStatus.PENDING
SUCCESSFUL = WorkflowStatus.SUCCESSFUL
FAILED = WorkflowStatus.FAILED
RESUMABLE = WorkflowStatus.RESUMABLE
CANCELED = WorkflowStatus.CANCELED
NONE = WorkflowStatus.NONE

__all__ = [
    # Running
    "init",
    "run",
    "run_async",
    "resume",
    "resume_async",
    # Asking
    "get_output",
    "get_output_async",
    "get_status",
    "get_metadata",
    # Stopping and deleting
    "cancel",
    "suspend",
    "delete",
    # Writing tasks
    "options",
    "continuation",
    "get_context",
    "WorkflowContext",
    # Statuses
    "WorkflowStatus",
    "RUNNING",
    "PENDING",
    "SUCCESSFUL",
    "FAILED",
    "RESUMABLE",
    "CANCELED",
    "NONE",
    # Errors
    "exceptions",
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowCancellationError",
    "WorkflowSuspendedError",
    "WorkflowNotFoundError",
    "WorkflowNotResumableError",
    "WorkflowStillActiveError",
]
