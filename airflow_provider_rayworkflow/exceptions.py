"""Every error of the Airflow side, for a task's log and for Airflow's ``retry_policy``.

.. code-block:: text

    RayWorkflowError
    ├── RayWorkflowInputError         what the DAG's author gave can't be run (not retried)
    ├── RayWorkflowConnectionError    the Airflow connection can't be used
    ├── RayWorkflowUnreachableError   the Ray cluster does not answer; the next try goes on
    ├── RayWorkflowManagerError       the cluster can't start a manager for the storage
    ├── RayWorkflowStartError         the cluster's manager could not start the workflow
    ├── RayWorkflowQueueFullError     the cluster has no place for the workflow now
    ├── RayWorkflowStorageError       the workflow storage can't be read or written
    ├── RayWorkflowNotFoundError      there is no workflow of the given id
    ├── RayWorkflowNotResumedError    of several workflows, some could not be resumed
    ├── RayWorkflowFailedError        a workflow task failed; the next try resumes
    │   └── RayWorkflowFailedForGoodError  with an AirflowFailException (not retried)
    ├── RayWorkflowOutputError        the output can't be what the Airflow task asks for (not retried)
    ├── RayWorkflowInterruptedError   the workflow was stopped; the next try resumes
    ├── RayWorkflowTimeoutError       the time to wait is over; the workflow is suspended
    ├── RayWorkflowStillActiveError   it is active, and should be restarted or deleted
    ├── RayWorkflowEndedError         what a sensor waits for can't come any more (not retried)
    ├── RayWorkflowSuspendedError     a person suspended the workflow (not retried)
    └── RayWorkflowCanceledError      the workflow was canceled (not retried)

An error about one workflow has its id as ``workflow_id``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.model.records import TaskFailure


class RayWorkflowError(Exception):
    """Root of the provider's errors."""


class RayWorkflowInputError(RayWorkflowError, AirflowFailException):
    """The workflow, its arguments, id or metadata can't be used. Nothing was started or written."""


class RayWorkflowConnectionError(RayWorkflowError):
    """The Airflow connection has something that is unknown, of a wrong type, or not supported."""


class RayWorkflowUnreachableError(RayWorkflowError):
    """The Ray cluster, or the way to it, does not answer. What it runs may go on."""


class RayWorkflowManagerError(RayWorkflowError):
    """A Ray job should have started the manager of the storage on the cluster, and has not.

    :ivar submission_id: of the job.
    """

    def __init__(self, storage: str, submission_id: str, message: str) -> None:
        super().__init__(
            f"The cluster has no workflow manager for {storage}: the Ray job {submission_id!r}, which "
            f"should start it, {shown_text(message)}"
        )
        self.submission_id = submission_id


class RayWorkflowStartError(RayWorkflowError):
    """The cluster's manager could not start the workflow; the next try may be luckier."""

    def __init__(self, workflow_id: str, message: str) -> None:
        super().__init__(f"Workflow {workflow_id!r} was not started. {shown_text(message)}")
        self.workflow_id = workflow_id


class RayWorkflowQueueFullError(RayWorkflowError):
    """As many workflows run and wait on the cluster as its limits allow. Nothing was written."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"Workflow {workflow_id!r} was not started: all slots and all places in the queue of "
            "the cluster's manager are taken. See max_running_workflows and max_pending_workflows."
        )
        self.workflow_id = workflow_id


class RayWorkflowStorageError(RayWorkflowError):
    """The workflow storage can't be used.

    :ivar is_transient: the same may work a moment later.
    """

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class RayWorkflowNotFoundError(RayWorkflowError):
    """Nothing is stored under the id."""

    def __init__(self, workflow_id: str, storage: str) -> None:
        super().__init__(f"There is no workflow {workflow_id!r} in {storage}.")
        self.workflow_id = workflow_id


class RayWorkflowFailedError(RayWorkflowError):
    """A task of the workflow failed with an exception of its own.

    :ivar task_id: the workflow task.
    :ivar error_type: the type of its exception, ``module.name``.
    :ivar error_message: the exception's text.
    :ivar cause: ``"application"``, or ``"timeout"`` where its time was over.
    """

    def __init__(self, workflow_id: str, failure: TaskFailure) -> None:
        super().__init__(
            f"Task {failure.task_id!r} of workflow {workflow_id!r} failed: "
            f"{shown_text(str(failure))}"
        )
        self.workflow_id = workflow_id
        self.task_id = failure.task_id
        self.error_type = failure.type
        self.error_message = failure.message
        self.cause = failure.cause.value


class RayWorkflowFailedForGoodError(RayWorkflowFailedError, AirflowFailException):
    """A task of the workflow raised an ``AirflowFailException``: a retry is no use."""


class RayWorkflowOutputError(RayWorkflowError, AirflowFailException):
    """The workflow was successful, and its output can't become the XComs that were asked for."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        super().__init__(
            f"Workflow {workflow_id!r} was successful, and the task has multiple_outputs, which "
            f"needs a dict of JSON: {problem}. Correct what the last workflow task returns, or "
            "leave multiple_outputs out; then clear the task instance."
        )
        self.workflow_id = workflow_id


class RayWorkflowInterruptedError(RayWorkflowError):
    """The workflow was stopped before its end; what it has committed is kept.

    :ivar cause: what its task has failed of, if it was that: ``"node_lost"``, ``"out_of_memory"``,
        ``"crashed"``, ``"system"``; else ``""``.
    """

    def __init__(self, workflow_id: str, reason: str, *, cause: str = "") -> None:
        super().__init__(
            f"Workflow {workflow_id!r} is RESUMABLE: {shown_text(reason)}. "
            "The next try resumes it; committed tasks don't run again."
        )
        self.workflow_id = workflow_id
        self.cause = cause


class RayWorkflowNotResumedError(RayWorkflowError):
    """Some workflows could not be resumed. The log says why, of each.

    :ivar workflow_ids: of these.
    """

    def __init__(self, workflow_ids: list[str]) -> None:
        super().__init__(
            f"{len(workflow_ids)} workflows could not be resumed, {workflow_ids[:5]} among them."
        )
        self.workflow_ids = workflow_ids


class RayWorkflowTimeoutError(RayWorkflowError):
    """The time to wait for the workflow is over. It is suspended; what it committed is kept.

    :ivar clock: which time is over.
    """

    def __init__(self, workflow_id: str, clock: str) -> None:
        super().__init__(
            f"{clock} is over. Workflow {workflow_id!r} is being suspended, which leaves it "
            "RESUMABLE: the next try resumes it."
        )
        self.workflow_id = workflow_id
        self.clock = clock


class RayWorkflowStillActiveError(RayWorkflowError):
    """The workflow is active, and what was asked for needs an inactive one."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        super().__init__(f"Workflow {workflow_id!r} {problem}.")
        self.workflow_id = workflow_id


class RayWorkflowEndedError(RayWorkflowError, AirflowFailException):
    """A workflow that a sensor waits for has a status that ends the wait.

    :ivar status: of it.
    """

    def __init__(
        self, workflow_id: str, status: str, wanted: str, failure: TaskFailure | None = None
    ) -> None:
        why = ""
        if failure is not None:
            why = f" (task {failure.task_id!r}: {shown_text(str(failure))})"
        super().__init__(
            f"Workflow {workflow_id!r} is {status}{why}, and the sensor waits until {wanted}."
        )
        self.workflow_id = workflow_id
        self.status = status


class RayWorkflowSuspendedError(RayWorkflowError, AirflowFailException):
    """A person suspended the workflow in the UI; what it has committed is kept."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"Workflow {workflow_id!r} was suspended by a person. Clear the task instance to "
            "resume it; committed tasks don't run again."
        )
        self.workflow_id = workflow_id


class RayWorkflowCanceledError(RayWorkflowError, AirflowFailException):
    """The workflow was canceled, which is final."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"Workflow {workflow_id!r} was canceled, which is final. To run it again, delete it "
            '(workflow.delete), or give the task on_clear="restart" or another workflow_id; then '
            "clear the task instance."
        )
        self.workflow_id = workflow_id
