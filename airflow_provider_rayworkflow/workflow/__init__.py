"""Durable workflows on Ray: the API of Ray Workflows (``ray.workflow``), carried on.

Importing this imports neither Ray nor pyarrow, and the calls themselves when one is first used.
"""

from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.workflow import common, exceptions
from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowCancellationError,
    WorkflowChangedError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
    WorkflowSuspendedError,
    WorkflowTaskTimeoutError,
)
from airflow_provider_rayworkflow.workflow.lazy_names import names_of
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.api import (
        cancel,
        continuation,
        delete,
        fork,
        get_metadata,
        get_output,
        get_output_async,
        get_status,
        init,
        iter_all,
        list_all,
        plan,
        prune,
        resume,
        resume_all,
        resume_async,
        run,
        run_async,
        sleep,
        suspend,
        wait_for_event,
    )
    from airflow_provider_rayworkflow.workflow.authoring.limits import limit
    from airflow_provider_rayworkflow.workflow.authoring.map_result import MapResult
    from airflow_provider_rayworkflow.workflow.authoring.maps import gather
    from airflow_provider_rayworkflow.workflow.authoring.node import Node
    from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction, task
    from airflow_provider_rayworkflow.workflow.event_listener import EventListener, TimerListener
    from airflow_provider_rayworkflow.workflow.execution.context import WorkflowContext, get_context
    from airflow_provider_rayworkflow.workflow.model.cache import Cache
    from airflow_provider_rayworkflow.workflow.model.retry import Retry
    from airflow_provider_rayworkflow.workflow.task_options import options
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            "api": [
                *("init", "run", "run_async", "resume", "resume_async", "resume_all", "plan"),
                *("fork", "list_all", "iter_all", "get_output", "get_output_async", "get_status"),
                *("get_metadata", "cancel", "suspend", "delete", "prune"),
                *("continuation", "sleep", "wait_for_event"),
            ],
            "authoring.limits": ["limit"],
            "authoring.map_result": ["MapResult"],
            "authoring.maps": ["gather"],
            "authoring.node": ["Node"],
            "authoring.task": ["TaskFunction", "task"],
            "event_listener": ["EventListener", "TimerListener"],
            "model.cache": ["Cache"],
            "model.retry": ["Retry"],
            "task_options": ["options"],
            "execution.context": ["WorkflowContext", "get_context"],
        },
    )

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
    "resume_all",
    "plan",
    "fork",
    # Asking
    "list_all",
    "iter_all",
    "get_output",
    "get_output_async",
    "get_status",
    "get_metadata",
    # Stopping and deleting
    "cancel",
    "suspend",
    "delete",
    "prune",
    # Writing tasks
    "task",
    "TaskFunction",
    "Node",
    "gather",
    "MapResult",
    "options",
    "limit",
    "Retry",
    "Cache",
    "continuation",
    "sleep",
    "wait_for_event",
    "EventListener",
    "TimerListener",
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
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowCancellationError",
    "WorkflowChangedError",
    "WorkflowSuspendedError",
    "WorkflowNotFoundError",
    "WorkflowNotResumableError",
    "WorkflowStillActiveError",
    "WorkflowTaskTimeoutError",
    # Modules
    "common",
    "exceptions",
]
