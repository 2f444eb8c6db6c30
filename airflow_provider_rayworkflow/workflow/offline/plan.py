"""What a run of a workflow would do, and why, read from the storage alone. Nothing is run.

It shows the :mod:`.snapshot` that the run itself would begin with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowChangedError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.columns import columns
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import OnChange, ReuseCounts
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints
from airflow_provider_rayworkflow.workflow.scheduling.decision import Decision, TaskAction, needed
from airflow_provider_rayworkflow.workflow.scheduling.failed_ends import FailedEnd, failed_ends
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot, ids_of
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_committed, read_earlier
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

_DROPPED = "it is not in the graph any more"
_FAILED = {
    FailedEnd.FAILED: "it failed",
    FailedEnd.NOT_RUN: "it did not run, as a task upstream failed",
}
_ACTIONS = {TaskAction.REUSED: "reuse", TaskAction.CHECKED: "check", TaskAction.RUNS: "run"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTask:
    """What becomes of one task.

    :ivar action: ``"reuse"``; ``"check"``: reuse, unless what it takes comes out differently;
        ``"run"``; ``"skip"``: it has no checkpoint, and its result is not needed.
    :ivar kind: ``"reused"``, ``"checked"``, ``"changed"`` (had a checkpoint and runs again),
        ``"new"`` or ``"unfinished"``.
    :ivar on_change: the policy that holds for it.
    :ivar creator: the task whose continuation it is of, ``""`` for none.
    """

    task_id: str
    action: str
    kind: str
    reason: str
    on_change: OnChange
    creator: str = ""
    is_forgotten: bool = False

    @property
    def runs(self) -> bool:
        """True if it runs, or may."""
        return self.action in ("run", "check")

    @property
    def is_mismatch(self) -> bool:
        """True if it is new or has changed, or may have; False where a restart has dropped its checkpoint."""
        return not self.is_forgotten and self.kind in ("changed", "checked", "new")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run or resume of a workflow would do now.

    :ivar is_of_stored: of the stored graph, as a resume takes it, which nothing refuses.
    :ivar status: of the workflow now.
    :ivar tasks: of the graph, inputs first, with those of stored continuations behind it.
    :ivar dropped: ids of committed tasks that the graph does not have any more.
    """

    workflow_id: str
    status: WorkflowStatus
    on_change: OnChange
    from_task: str
    is_of_stored: bool
    tasks: Sequence[PlannedTask]
    dropped: Sequence[str] = ()

    @property
    def runs(self) -> bool:
        """True if any task would run, or perhaps would.

        A workflow that was successful though items of a map have failed does not run for these.
        """
        if self.status is not WorkflowStatus.SUCCESSFUL:
            return any(task.runs for task in self.tasks)
        may_be_left = _FAILED.values()
        return any(task.action == "run" and task.reason not in may_be_left for task in self.tasks)

    @property
    def counts(self) -> ReuseCounts:
        """How many tasks are reused, checked, changed, new, unfinished and dropped."""
        kinds = Counter(task.kind for task in self.tasks)
        return ReuseCounts(**kinds, dropped=len(self.dropped))

    @property
    def note(self) -> str:
        """Why a run or resume does something else than this plan; ``""`` if it does this."""
        if self.status.is_active:
            attaches = "nothing of this is done: a run or resume attaches to it"
            refused = "a restart from a task is refused until it has stopped"
            return f"It is {self.status}, so {refused if self.from_task else attaches}."
        if self.status is WorkflowStatus.CANCELED:
            return "It was canceled, so a run or resume is refused; a fork goes on from it."
        if not self.runs and any(task.runs for task in self.tasks):
            return (
                "It was successful, and a run does nothing for the items of maps that have failed."
            )
        if changed := list(self._refused):
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            return (
                'A run is refused, as on_change is "refuse" for what has changed: '
                f"{', '.join(changed[:5])}{more}."
            )
        return ""

    @property
    def mismatches(self) -> list[str]:
        """The tasks that ``on_change="refuse"`` refuses, each as ``"task_id: reason"``."""
        return [f"{task_id}: {reason}" for task_id, reason in self._refused.items()]

    @property
    def _refused(self) -> dict[str, str]:
        if self.is_of_stored:
            return {}
        found = {
            task.task_id: task.reason
            for task in self.tasks
            if task.on_change == "refuse" and task.is_mismatch
        }
        if self.on_change == "refuse":
            found |= dict.fromkeys(self.dropped, _DROPPED)
        return found

    def check(self) -> None:
        """Return if no task refuses what has changed.

        :raises WorkflowChangedError: with all that has.
        """
        if mismatches := self.mismatches:
            raise WorkflowChangedError(self.workflow_id, mismatches)

    def to_json(self) -> Json:
        """The plan as JSON: ids, status, policy, counts, tasks, dropped tasks, mismatches, note."""
        return {
            "workflow_id": self.workflow_id,
            "status": self.status.value,
            "on_change": self.on_change,
            "from_task": self.from_task,
            "counts": self.counts.to_json(),
            "tasks": [asdict(task) for task in self.tasks],
            "dropped": list(self.dropped),
            "mismatches": self.mismatches,
            "note": self.note,
        }

    def __str__(self) -> str:
        """A table of the tasks, under a line of counts and the note."""
        rows = [(task.task_id, task.action, task.reason) for task in self.tasks]
        rows += [(task_id, "drop", _DROPPED) for task_id in self.dropped]
        title = f"{self.workflow_id} {self.status}: {self.counts}"
        return "\n".join(
            [title, *filter(None, [self.note]), "", *columns([("TASK", "ACTION", "WHY"), *rows])]
        )


def make_plan(
    store: WorkflowStore,
    workflow_id: str,
    found: StoredWorkflow | None,
    graph: Graph | None,
    *,
    on_change: OnChange | None = None,
    from_task: str = "",
    files: Sequence[WorkflowFile] | None = None,
) -> Plan:
    """What a run or resume would do.

    :param found: how the workflow stands, None for nothing stored.
    :param graph: None for the stored one.
    :param files: what lies in the workflow's folder; None if that has to be asked.
    :raises WorkflowNotFoundError: when nothing is stored, and no graph is given.
    :raises ValueError: when there is no task of the name ``from_task``.
    """
    earlier, stored = None, None
    if found is not None:
        earlier, stored = read_earlier(
            store, workflow_id, found.record.epoch, is_replaced=graph is not None
        )
    if (run := graph or stored) is None:
        raise WorkflowNotFoundError(workflow_id)
    claim = next_claim(
        workflow_id,
        after=earlier.epoch if earlier else 0,
        manager_id="",
        now=0,
        user_metadata={},
        has_graph=graph is not None,
        continues=earlier,
        on_change=on_change,
        from_task=from_task,
    )
    snapshot = Snapshot(
        claim=claim,
        graph=run,
        checkpoints=read_committed(store, earlier, files=files) if earlier else Checkpoints(),
        known=ids_of(stored) if stored else None,
    )
    if from_task:
        snapshot.check_restart(from_task)
    status = found.status if found else WorkflowStatus.NONE
    epoch = earlier.epoch if earlier else 0
    return _plan_of(snapshot, status, from_task, epoch, is_of_stored=graph is None)


def planned_task(snapshot: Snapshot, task_id: str) -> PlannedTask | None:
    """What a resume would do with a task; None if the workflow has no such task.

    :param snapshot: of the latest run; an outline will do.
    """
    latest = snapshot.claim
    claim = next_claim(
        latest.workflow_id,
        after=latest.epoch,
        manager_id="",
        now=0,
        user_metadata={},
        has_graph=False,
        continues=latest,
    )
    resumed = replace(snapshot, claim=claim, known=ids_of(snapshot.graph), is_successful=False)
    return next((task for task in _planned(resumed, latest.epoch) if task.task_id == task_id), None)


def _plan_of(
    snapshot: Snapshot, status: WorkflowStatus, from_task: str, epoch: int, *, is_of_stored: bool
) -> Plan:
    """The plan of a snapshot; ``epoch`` is that of the run before, 0 for none."""
    return Plan(
        workflow_id=snapshot.claim.workflow_id,
        status=status,
        on_change=snapshot.claim.on_change,
        from_task=from_task,
        is_of_stored=is_of_stored,
        tasks=list(_planned(snapshot, epoch)),
        dropped=sorted(snapshot.dropped),
    )


def _planned(snapshot: Snapshot, epoch: int) -> Iterator[PlannedTask]:
    decisions = snapshot.decisions
    failed = failed_ends(snapshot, epoch=epoch)
    wanted: dict[str, bool] = {"": True}  # whether the result of a task is needed
    restarts: dict[str, int] = {}
    for level in snapshot.levels():
        indexes = (
            needed(level.graph, [decisions[one] for one in level.task_ids])
            if wanted[level.creator]
            else set()
        )
        for index, task_id in enumerate(level.task_ids):
            decision = decisions[task_id]
            since = restarts[task_id] = max(
                snapshot.restarted_since(task_id), restarts.get(level.creator, 0)
            )
            wanted[task_id] = index in indexes
            is_planned = wanted[task_id] or decision.action is TaskAction.REUSED
            reason = decision.reason
            if decision.kind == "unfinished" and task_id in failed:
                reason = _FAILED[failed[task_id]]
            if _may_be_cached(snapshot.claim, level.graph.tasks[index], decision, since):
                reason = f"{reason}; it may be taken from the cache"
            yield PlannedTask(
                task_id=task_id,
                action=_ACTIONS[decision.action] if is_planned else "skip",
                kind=decision.kind,
                reason=reason if is_planned else _not_needed(reason),
                on_change=decision.on_change,
                creator=level.creator,
                is_forgotten=decision.is_forgotten,
            )


def _may_be_cached(claim: Claim, task: Task, decision: Decision, since: int) -> bool:
    """True if a task that runs asks the cache first; see :class:`.CachedTasks`.

    :param since: the epoch of the latest restart that concerns it.
    """
    cache = task.options.cache
    if cache is None or decision.action is not TaskAction.RUNS or decision.is_by_restart(since):
        return False
    return cache.version is not None or claim.graph_epoch == claim.epoch


def _not_needed(reason: str) -> str:
    return f"{reason}, and its result is not needed"
