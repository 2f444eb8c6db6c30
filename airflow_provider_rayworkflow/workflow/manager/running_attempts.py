"""What workers tell and ask the manager of the attempts that they run."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.records import RunningTask


class RunningAttempts:
    """The attempts of the runs that go on here; calls for others change nothing."""

    def __init__(self, known: Registry) -> None:
        self._known = known

    def has_begun(self, workflow_id: str, epoch: int, task: RunningTask) -> None:
        """A worker has begun an attempt of a task."""
        if (attempts := self._of(workflow_id, epoch)) is not None:
            attempts.has_begun(task)

    def kill_overdue(
        self, workflow_id: str, task_id: str, epoch: int, attempt: int, after_s: float
    ) -> None:
        """Stop one task if it has not ended by then: its time is over, and it can't be interrupted.

        :param after_s: from now, in seconds.
        """
        if (attempts := self._of(workflow_id, epoch)) is not None:
            attempts.kill_overdue(task_id, attempt, after_s)

    def beat(self, workflow_id: str, task_id: str, epoch: int, attempt: int) -> None:
        """An attempt with a limit to its silence is not silent."""
        if (attempts := self._of(workflow_id, epoch)) is not None:
            attempts.beat(task_id, attempt)

    async def until_stop(self, workflow_id: str, task_id: str, epoch: int, attempt: int) -> None:
        """Return as soon as an attempt is to be stopped, or if it counts no more."""
        if (attempts := self._of(workflow_id, epoch)) is not None:
            await attempts.until_stop(task_id, attempt)

    def _of(self, workflow_id: str, epoch: int) -> AttemptTable | None:
        """Those of a run that goes on here, None for any other one."""
        live = self._known.live.get(workflow_id)
        executor = live.executor if live and live.claim.epoch == epoch else None
        return executor.attempts if executor else None
