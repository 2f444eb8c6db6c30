"""A workflow's tasks as a page shows them, read from the storage. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotFoundError
from airflow_provider_rayworkflow.workflow.graph import Graph, Task, allocate_ids
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model import (
    Form,
    StatusRecord,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Checkpoints,
    Claim,
    Found,
    TaskRecord,
    WorkflowStore,
)

#: How a task stands. The order is that of a group's colours: what needs a look comes first.
STATES = (
    "failed",
    "retried",
    "caught",
    "running",
    "submitted",
    "waiting",
    "idle",
    "continued",
    "done",
    "reused",
)
#: More tasks than this are left out: endless recursion makes millions.
MAX_TASKS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskView:
    """One task.

    :ivar name: what it asked to be called; tasks of a loop share it.
    :ivar state: one of :data:`STATES`. ``"submitted"``: handed to Ray, may wait for a worker;
        ``"waiting"``: for other tasks; ``"idle"``: has not run and nobody runs the workflow;
        ``"caught"``: its result is an exception; ``"continued"``: it returned a graph;
        ``"reused"``: an earlier run committed it.
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


class Tasks:
    """The tasks of one workflow: one listing, and a read for its graph and each journal segment.

    :raises StorageError: when that can't be read.
    """

    def __init__(self, store: WorkflowStore, found: Found) -> None:
        record = found.record
        self._record = record
        self._status = found.status
        claim, graph, self._checkpoints = _read(store, record)
        self._placed = dict(_place(graph, self._checkpoints))
        self._stale = _stale(claim, self._placed, self._checkpoints)
        progress = record.progress if found.status.is_active else None
        self._running = {task.task_id: task for task in progress.running} if progress else {}
        self._retried = {task.task_id: task for task in progress.retried} if progress else {}

    def views(self) -> list[TaskView]:
        """All tasks, inputs before those that take them."""
        return [self._view(task_id, placed) for task_id, placed in self._placed.items()]

    @property
    def damaged(self) -> list[str]:
        """What of the workflow's checkpoints is torn or changed, as text."""
        return [str(damage) for damage in self._checkpoints.damaged]

    @property
    def is_cut(self) -> bool:
        """True if there are more tasks than are shown."""
        return len(self._placed) >= MAX_TASKS

    def details(self, task_id: str) -> TaskDetails | None:
        """One task, None if there is none of that id."""
        placed = self._placed.get(task_id)
        if placed is None:
            return None
        failure, record = self._failure_of(task_id), self._committed(task_id)
        if record is None:
            record = self._checkpoints.failures.get(task_id)
        if failure is None and record is not None:
            failure = record.failure
        return TaskDetails(
            view=self._view(task_id, placed), task=placed.task, record=record, failure=failure
        )

    def _view(self, task_id: str, placed: _Placed) -> TaskView:
        record, failure = self._committed(task_id), self._failure_of(task_id)
        failed = self._checkpoints.failures.get(task_id) if failure else None
        times = (record.times if record else None) or (failed.times if failed else None)
        view = TaskView(
            task_id=task_id,
            name=placed.task.name,
            state=self._state(task_id, placed, record, failure),
            takes=placed.takes,
            creator=placed.creator,
            gives=record.task_ids[-1] if record and record.graph is not None else "",
            error=f"{failure.type}: {failure.message}" if failure else "",
        )
        return self._with_times(view, times)

    def _with_times(self, view: TaskView, times: TaskTimes | None) -> TaskView:
        if (failed := self._retried.get(view.task_id)) is not None:
            view = replace(view, attempt=failed.attempt, error=failed.error)
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

    def _state(
        self,
        task_id: str,
        placed: _Placed,
        record: TaskRecord | None,
        failure: TaskFailure | None,
    ) -> str:
        if record is not None:
            return self._state_of_committed(record)
        if failure is not None:
            return "failed"
        if self._status is WorkflowStatus.SUCCESSFUL:
            return "done"  # without a checkpoint
        if not self._status.is_active:
            return "idle"
        if task_id in self._retried:
            return "retried"
        if task_id in self._running:
            return "running"
        is_ready = all(self._is_done(upstream) for upstream in placed.takes)
        return "submitted" if is_ready and self._status is WorkflowStatus.RUNNING else "waiting"

    def _state_of_committed(self, record: TaskRecord) -> str:
        if record.graph is not None:
            return "done" if self._is_done(record.task_id) else "continued"
        if record.result is not None and record.result.form is Form.CAUGHT_ERROR:
            return "caught"
        return "reused" if record.epoch < self._record.epoch else "done"

    def _is_done(self, task_id: str) -> bool:
        record = self._committed(task_id)
        while record is not None and record.graph is not None:
            record = self._committed(record.task_ids[-1])
        return record is not None

    def _committed(self, task_id: str) -> TaskRecord | None:
        return None if task_id in self._stale else self._checkpoints.records.get(task_id)

    def _failure_of(self, task_id: str) -> TaskFailure | None:
        """Of a task whose exception, or loss, ended the latest run."""
        failure = None if self._status.is_active else self._record.failure
        if failure is not None and failure.task_id == task_id:
            return failure
        failed = self._checkpoints.failures.get(task_id)
        is_of_this_run = failed is not None and failed.epoch == self._record.epoch
        return failed.failure if failed is not None and is_of_this_run else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    task: Task
    takes: tuple[str, ...]
    creator: str


def _read(store: WorkflowStore, record: StatusRecord) -> tuple[Claim, Graph, Checkpoints]:
    workflow_id, epoch = record.workflow_id, record.epoch
    claim, graph = store.read_run(workflow_id, epoch)
    if not graph.tasks:
        raise WorkflowNotFoundError(workflow_id)
    return claim, graph, store.read_checkpoints(workflow_id, since_epoch=claim.base_epoch)


def _place(graph: Graph, checkpoints: Checkpoints) -> Iterator[tuple[str, _Placed]]:
    """Each task after those that it takes, continuations after their creators."""
    waiting: list[tuple[Graph, Sequence[str], str]] = [(graph, allocate_ids(graph, TaskIds()), "")]
    number = 0
    while waiting:
        graph, task_ids, creator = waiting.pop(0)
        for task_id, task in zip(task_ids, graph.tasks, strict=True):
            if number == MAX_TASKS:
                return
            number += 1
            takes = tuple(task_ids[index] for index in task.upstream)
            yield task_id, _Placed(task=task, takes=takes, creator=creator)
            record = checkpoints.records.get(task_id)
            if record is not None and record.graph is not None:
                made = Graph.from_bytes(record.graph, key=f"continuation of {task_id}")
                waiting.append((made, record.task_ids, task_id))


def _stale(claim: Claim, placed: Mapping[str, _Placed], checkpoints: Checkpoints) -> frozenset[str]:
    """Tasks whose checkpoints don't count any more, as somebody wanted them to run again."""
    since: dict[str, int] = {}
    for task_id, place in placed.items():
        above = [since.get(upstream, 0) for upstream in (*place.takes, place.creator)]
        since[task_id] = max([claim.restarts.get(task_id, 0), *above])
    return frozenset(
        task_id
        for task_id, record in checkpoints.records.items()
        if record.epoch < since.get(task_id, 0)
    )
