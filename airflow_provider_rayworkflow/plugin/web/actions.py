"""What a user may have done to a workflow, and how that reaches its manager.

All goes through the storage, so a cluster that can't be reached hinders nothing: the manager of the
workflow looks for requests every 2 s. Only a resume needs a process to run it: the task instance
that started the workflow, which the page's script has Airflow clear, or a cluster of the connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from fastapi import HTTPException
from pydantic import BaseModel, Field

from airflow_provider_rayworkflow.clusters.hosts import engine_for
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowNotFoundError,
    RayWorkflowStillActiveError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.plugin.web.access import Access, Method
from airflow_provider_rayworkflow.plugin.web.shown import ShownWorkflow, open_workflow
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.exceptions import StorageError, WorkflowError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.mailbox import ANYBODY

log = get_logger(__name__)

# How long the page waits for a cluster.
_TIMEOUT_S = 10.0


class PageAction(StrEnum):
    """What can be done to a workflow."""

    RESUME = "resume"
    #: Forget a task's checkpoint and those of what depends on it.
    RUN_AGAIN = "run_again"
    SUSPEND = "suspend"
    CANCEL = "cancel"
    DELETE = "delete"


class ActionBody(BaseModel):
    """What the page's script sends."""

    conn_id: str = Field(max_length=250)
    workflow_id: str = Field(max_length=2000)
    action: PageAction
    task_id: str = Field(default="", max_length=2000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A button.

    :ivar question: what has to be confirmed.
    :ivar clears: the task instance is cleared by the page's script, with the user's own rights.
    """

    title: str
    question: str
    clears: bool = False


def offered(access: Access, workflow: ShownWorkflow) -> dict[PageAction, Offer]:
    """What the user may do now."""
    return {
        action: offer
        for action, offer in _possible(workflow).items()
        if access.allows(_METHODS[action], workflow.conn_id, workflow.origin)
    }


def act(access: Access, body: ActionBody, *, timeout_s: float = _TIMEOUT_S) -> str:
    """Do it, and say what was done.

    :param timeout_s: how long to wait for a cluster.
    :raises HTTPException: 403 and 404 as for :meth:`Access.check`; 409 if the workflow's
        status does not allow it.
    """
    workflow = open_workflow(access, body.conn_id, body.workflow_id, method=_METHODS[body.action])
    if body.action not in _possible(workflow):
        raise HTTPException(
            409, f"The workflow is {workflow.found.status} now: {body.action.value} can't be done."
        )
    log.info("%s of workflow %s, asked for in the UI", body.action, body.workflow_id)
    try:
        return _do(workflow, body, timeout_s)
    except StorageError as exc:
        raise RayWorkflowStorageError(str(exc)) from exc  # details are for the log only
    except (WorkflowError, RayWorkflowStillActiveError, RayWorkflowNotFoundError) as exc:
        raise HTTPException(409, str(exc)) from exc  # it has changed meanwhile
    except ValueError as exc:
        raise HTTPException(422, str(exc)) from exc


_METHODS: dict[PageAction, Method] = {
    PageAction.RESUME: "PUT",
    PageAction.RUN_AGAIN: "PUT",
    PageAction.SUSPEND: "PUT",
    PageAction.CANCEL: "PUT",
    PageAction.DELETE: "DELETE",
}


def _possible(workflow: ShownWorkflow) -> dict[PageAction, Offer]:
    status, has_task_instance = workflow.found.status, workflow.origin is not None
    cluster = workflow.hook.settings.cluster
    possible: dict[PageAction, Offer] = {}
    if status.can_be_resumed and has_task_instance:
        possible[PageAction.RESUME] = Offer(
            title="Resume",
            question="Airflow clears the task instance that started this workflow. Its next try "
            "resumes the workflow: tasks with a checkpoint don't run again.",
            clears=True,
        )
    elif status.can_be_resumed and cluster is not None:  # a local Ray would be the API server's
        possible[PageAction.RESUME] = Offer(
            title="Resume",
            question="The connection's cluster resumes the workflow: tasks with a checkpoint don't run "
            "again.",
        )
    if not status.is_active and status is not WorkflowStatus.CANCELED and has_task_instance:
        possible[PageAction.RUN_AGAIN] = Offer(
            title="Run again from here",
            question="The checkpoints of this task and of all that depend on it are given up. Then "
            "Airflow clears the task instance that started the workflow, and its next try runs them "
            "again.",
            clears=True,
        )
    if status.is_active:
        possible[PageAction.SUSPEND] = Offer(
            title="Suspend",
            question="Running tasks are stopped, and what is committed is kept. A task instance that "
            "waits for the workflow fails; clear it to resume.",
        )
    if status not in (WorkflowStatus.SUCCESSFUL, WorkflowStatus.CANCELED):
        possible[PageAction.CANCEL] = Offer(
            title="Cancel",
            question="The workflow is stopped for good: it can't be resumed. A task instance that "
            "waits for it fails.",
        )
    if not status.is_active:
        possible[PageAction.DELETE] = Offer(
            title="Delete",
            question="Everything that is stored of the workflow is deleted, its output and its "
            "checkpoints too.",
        )
    return possible


def _do(workflow: ShownWorkflow, body: ActionBody, timeout_s: float) -> str:
    hook, workflow_id = workflow.hook, workflow.workflow_id
    match body.action:
        case PageAction.SUSPEND:
            hook.suspend(workflow_id)
            return "Suspending: the manager that runs the workflow looks for requests every 2 s."
        case PageAction.CANCEL:
            status = hook.cancel(workflow_id)
            if status is WorkflowStatus.CANCELED:
                return "The workflow is canceled."
            return "Canceling: the manager that runs the workflow looks for requests every 2 s."
        case PageAction.DELETE:
            hook.delete(workflow_id)
            return "The workflow is deleted."
        case PageAction.RUN_AGAIN:
            _forget(workflow, body.task_id)
            return "The checkpoints are given up."
        case PageAction.RESUME:
            if workflow.origin is not None:
                return "The task instance has to be cleared."  # by the page's script
            return _resume_on_cluster(workflow, timeout_s)


def _resume_on_cluster(workflow: ShownWorkflow, timeout_s: float) -> str:
    """Have the connection's cluster go on with a workflow that no task instance waits for."""
    engine = engine_for(
        workflow.hook,
        RunSpec(workflow_id=workflow.workflow_id),
        token=ANYBODY,
        unreachable_timeout_s=timeout_s,
    )
    try:
        engine.submit(StartOptions())
    except RayWorkflowUnreachableError as exc:
        raise HTTPException(502, "The Ray cluster does not answer. Try again later.") from exc
    finally:
        engine.close()
    return "Resuming: the manager of the cluster looks for submissions every second."


def _forget(workflow: ShownWorkflow, task_id: str) -> None:
    lifecycle.forget_from(
        workflow.hook.store,
        workflow.found,
        task_id,
        manager_id=new_visitor_id(),
        now=time.time(),
    )
