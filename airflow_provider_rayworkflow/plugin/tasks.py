"""A workflow's tasks as a page shows them, read from the storage. Nothing is unpickled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotFoundError
from airflow_provider_rayworkflow.workflow.model.graph import Task
from airflow_provider_rayworkflow.workflow.model.records import Form, TaskFailure, TaskTimes
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.offline.plan import PlannedTask, planned_task
from airflow_provider_rayworkflow.workflow.scheduling.failed_ends import FailedEnd, failed_ends
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Placed
from airflow_provider_rayworkflow.workflow.storage.outline import read_outline
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

#: How a task stands. The order is that of a group's colours: what needs a look comes first.
STATES = (
    "failed",
    "retried",
    "caught",
    "running",
    "submitted",
    "waiting",
    "idle",
    "not_run",
    "continued",
    "done",
    "skipped",
    "cached",
    "reused",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskView:
    """One task.

    :ivar name: what it asked to be called; tasks of a loop share it.
    :ivar state: one of :data:`STATES`. ``"submitted"``: handed to Ray, may wait for a worker;
        ``"waiting"``: for other tasks; ``"idle"``: has not run and no manager runs the workflow;
        ``"not_run"``: and will not, as a task upstream has failed; ``"skipped"``: as its rule says;
        ``"caught"``: its result is an exception; ``"continued"``: it returned a graph;
        ``"cached"``: its result is from the cache; ``"reused"``: an earlier run committed it.
    :ivar takes: ids of the tasks whose results it takes.
    :ivar creator: the task that returned the graph that it is of, ``""`` for none.
    :ivar gives: of a task that returned a graph: the task whose result is its own.
    :ivar started_at: seconds since the epoch; None where that is not known.
    """

    task_id: str
    name: str
    state: str
    takes: tuple[str, ...] = ()
    creator: str = ""
    gives: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 0
    node: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDetails:
    """One task with everything that is stored of it.

    :ivar record: what it committed, or how it failed; None for nothing.
    :ivar failure: the exception that is its result, or that ended the workflow.
    """

    view: TaskView
    task: Task
    record: TaskRecord | None
    failure: TaskFailure | None


class ShownTasks:
    """The tasks of one workflow: one listing, and a read for its graph and each journal segment.

    :param value_of: the task whose result and failure are kept whole.
    :raises TooLargeError: when they are too many, or too large.
    :raises StorageError: when that can't be read.
    """

    def __init__(self, store: WorkflowStore, found: StoredWorkflow, *, value_of: str = "") -> None:
        record = found.record
        self._record = record
        self._status = found.status
        self._snapshot = read_outline(store, record, value_of=value_of)
        if not self._snapshot.graph.tasks:
            raise WorkflowNotFoundError(record.workflow_id)
        self._failed = failed_ends(self._snapshot, self._failed_without_record)
        self._placed = {placed.task_id: placed for placed in self._snapshot.tasks()}
        progress = record.progress if found.status.is_active else None
        self._running = {task.task_id: task for task in progress.running} if progress else {}
        self._retried = {task.task_id: task for task in progress.retried} if progress else {}

    def views(self) -> list[TaskView]:
        """All tasks, inputs before those that take them."""
        return [self._view(placed) for placed in self._placed.values()]

    @property
    def damaged(self) -> list[str]:
        """What of the workflow's checkpoints is torn or changed, as text."""
        return [str(damage) for damage in self._snapshot.checkpoints.damaged]

    def planned(self, task_id: str) -> PlannedTask | None:
        """What becomes of a task if the workflow is resumed as it is stored; None if it can't be."""
        if not self._status.can_be_resumed:
            return None
        return planned_task(self._snapshot, task_id)

    def details(self, task_id: str) -> TaskDetails | None:
        """The task of that id, None if the workflow has no such task."""
        placed = self._placed.get(task_id)
        if placed is None:
            return None
        failure, record = self._failure_of(task_id), placed.record
        if record is None:
            record = self._snapshot.checkpoints.failures.get(task_id)
        if failure is None and record is not None:
            failure = record.failure
        return TaskDetails(
            view=self._view(placed), task=placed.task, record=record, failure=failure
        )

    def _view(self, placed: Placed) -> TaskView:
        task_id, record = placed.task_id, placed.record
        failure = self._failure_of(task_id)
        failed = self._snapshot.checkpoints.failures.get(task_id) if failure else None
        times = (record.times if record else None) or (failed.times if failed else None)
        view = TaskView(
            task_id=task_id,
            name=placed.task.name,
            state=self._state(placed, failure),
            takes=placed.takes,
            creator=placed.creator,
            gives=record.task_ids[-1] if record and record.graph is not None else "",
            error=str(failure) if failure else "",
        )
        return self._with_times(view, times)

    def _with_times(self, view: TaskView, times: TaskTimes | None) -> TaskView:
        if (failed := self._retried.get(view.task_id)) is not None:
            view = replace(view, attempt=failed.attempt, error=failed.text)
        if (running := self._running.get(view.task_id)) is not None:
            return replace(
                view,
                started_at=running.started_at,
                attempt=running.attempt,
                node=running.node,
            )
        if times is None:
            return view
        return replace(
            view,
            started_at=times.started_at,
            ended_at=times.ended_at,
            attempt=times.attempt,
            node=times.node,
        )

    def _state(self, placed: Placed, failure: TaskFailure | None) -> str:
        task_id = placed.task_id
        if placed.record is not None:
            return self._state_of_committed(placed.record)
        if failure is not None:
            return "failed"
        if self._failed.get(task_id) is FailedEnd.NOT_RUN:
            return "not_run"
        if self._status is WorkflowStatus.SUCCESSFUL:
            return "done"  # without a checkpoint
        if not self._status.is_active:
            return "idle"
        if task_id in self._retried:
            return "retried"
        if task_id in self._running:
            return "running"
        is_ready = all(map(self._snapshot.has_finished, placed.takes))
        return "submitted" if is_ready and self._status is WorkflowStatus.RUNNING else "waiting"

    def _state_of_committed(self, record: TaskRecord) -> str:
        if record.graph is not None:
            return "done" if self._snapshot.has_finished(record.task_id) else "continued"
        if record.is_skipped:
            return "skipped"
        if record.result is not None and record.result.form is Form.CAUGHT_ERROR:
            return "caught"
        if record.epoch < self._record.epoch:
            return "reused"
        return "cached" if record.cached else "done"

    @property
    def _failed_without_record(self) -> list[str]:
        failure = None if self._status.is_active else self._record.failure
        return [failure.task_id] if failure else []

    def _failure_of(self, task_id: str) -> TaskFailure | None:
        """Of a task whose exception, or loss, ended the latest run."""
        failure = None if self._status.is_active else self._record.failure
        if failure is not None and failure.task_id == task_id:
            return failure
        failed = self._snapshot.checkpoints.failures.get(task_id)
        is_of_this_run = failed is not None and failed.epoch == self._record.epoch
        return failed.failure if failed is not None and is_of_this_run else None
