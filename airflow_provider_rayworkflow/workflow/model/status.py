"""The statuses of a workflow and the one table of legal changes."""

from __future__ import annotations

from enum import StrEnum

from airflow_provider_rayworkflow.workflow.exceptions import IllegalTransitionError


class WorkflowStatus(StrEnum):
    """The status of a workflow; equal to its name as a string."""

    #: Nothing is stored under the id. Never the status of a workflow.
    NONE = "NONE"
    #: Accepted, and waiting for a free slot (``max_running_workflows``).
    PENDING = "PENDING"
    #: Its tasks are being run by a manager whose lease is alive.
    RUNNING = "RUNNING"
    #: Finished; the output is stored.
    SUCCESSFUL = "SUCCESSFUL"
    #: An application error ended it. ``resume`` goes on from the failed task.
    FAILED = "FAILED"
    #: Stopped by a system failure or by ``suspend``. ``resume`` goes on.
    RESUMABLE = "RESUMABLE"
    #: Stopped for good by ``cancel``.
    CANCELED = "CANCELED"

    @classmethod
    def non_terminating_status(cls) -> tuple[WorkflowStatus, ...]:
        """The statuses of a workflow that a live manager holds."""
        return cls.RUNNING, cls.PENDING

    @property
    def is_active(self) -> bool:
        """True while a manager holds the workflow."""
        return self in _ACTIVE

    @property
    def can_be_resumed(self) -> bool:
        """True when ``resume`` would go on with the workflow's tasks."""
        return self in _CAN_BE_RESUMED

    @property
    def can_be_restarted(self) -> bool:
        """True when it may be run again from one of its tasks on."""
        return self in RUN_AGAIN


_NONE, _PENDING, _RUNNING = WorkflowStatus.NONE, WorkflowStatus.PENDING, WorkflowStatus.RUNNING
_SUCCESSFUL, _FAILED = WorkflowStatus.SUCCESSFUL, WorkflowStatus.FAILED
_RESUMABLE, _CANCELED = WorkflowStatus.RESUMABLE, WorkflowStatus.CANCELED

_ACTIVE = frozenset({_PENDING, _RUNNING})
_CAN_BE_RESUMED = frozenset({_FAILED, _RESUMABLE})

#: What each status may become by itself, or by a resume, a cancel or a suspend. SUCCESSFUL and
#: CANCELED are final: a start from scratch deletes what is stored and begins at NONE again.
TRANSITIONS: dict[WorkflowStatus, frozenset[WorkflowStatus]] = {
    _NONE: frozenset({_PENDING, _RUNNING, _RESUMABLE}),  # RESUMABLE: a fork
    _PENDING: frozenset({_RUNNING, _RESUMABLE, _CANCELED}),
    _RUNNING: frozenset({_SUCCESSFUL, _FAILED, _RESUMABLE, _CANCELED}),
    _FAILED: frozenset({_PENDING, _RUNNING, _CANCELED}),
    _RESUMABLE: frozenset({_PENDING, _RUNNING, _CANCELED}),
    _SUCCESSFUL: frozenset(),
    _CANCELED: frozenset(),
}

#: What a status becomes first when a part of the workflow has to run again: a task from which it
#: is restarted, or an output that is damaged.
RUN_AGAIN: dict[WorkflowStatus, WorkflowStatus] = {
    _FAILED: _RESUMABLE,
    _RESUMABLE: _RESUMABLE,
    _SUCCESSFUL: _RESUMABLE,
}


def check_transition(workflow_id: str, current: WorkflowStatus, new: WorkflowStatus) -> None:
    """Raise unless the workflow may go from one status to the other.

    :raises IllegalTransitionError: when the change is not in :data:`TRANSITIONS`.
    """
    if new not in TRANSITIONS[current]:
        raise IllegalTransitionError(workflow_id, current.value, new.value)
