"""What a run of a workflow would do, and why, read from the storage alone. Nothing is run.

Decided by :mod:`.reuse`, as the run itself is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowChangedError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.graph import Graph, allocate_ids
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model import OnChange, ReuseCounts
from airflow_provider_rayworkflow.workflow.reuse import (
    Reuse,
    Rules,
    Verdict,
    needed,
    stored_levels,
)
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Checkpoints,
    Found,
    WorkflowStore,
)

Json = dict[str, Any]

_DROPPED = "it is not in the graph any more"
_ACTIONS = {Verdict.REUSED: "reuse", Verdict.CHECKED: "check", Verdict.RUNS: "run"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTask:
    """What becomes of one task.

    :ivar action: ``"reuse"``; ``"check"``: reuse, unless what it takes comes out differently;
        ``"run"``; ``"skip"``: it has no checkpoint, and nobody needs its result.
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
        """True if its checkpoint is of something else, or it was not there before."""
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
        """True if any task would run, or perhaps would."""
        return any(task.runs for task in self.tasks)

    @property
    def counts(self) -> ReuseCounts:
        """How many tasks are reused, checked, changed, new, unfinished and dropped."""
        kinds = Counter(task.kind for task in self.tasks)
        return ReuseCounts(**kinds, dropped=len(self.dropped))

    @property
    def note(self) -> str:
        """Why this is not what a run or resume does, ``""`` if it is."""
        if self.status.is_active:
            attaches = "nothing of this is done: a run or resume attaches to it"
            refused = "a restart from a task is refused until it has stopped"
            return f"It is {self.status}, so {refused if self.from_task else attaches}."
        if self.status is WorkflowStatus.CANCELED:
            return "It was canceled, so a run or resume is refused; a fork goes on from it."
        if changed := list(self._refused):
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            return (
                'A run is refused, as on_change is "refuse" for what has changed: '
                f"{', '.join(changed[:5])}{more}."
            )
        return ""

    @property
    def mismatches(self) -> list[str]:
        """What ``on_change="refuse"`` does not bear, a line each."""
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
        lines = [("TASK", "ACTION", "WHY"), *rows]
        widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
        table = "\n".join(
            f"{task_id.ljust(widths[0])}  {action.ljust(widths[1])}  {why}"
            for task_id, action, why in lines
        )
        title = f"{self.workflow_id} {self.status}: {self.counts}"
        return "\n".join([title, *filter(None, [self.note]), "", table])


def make_plan(
    store: WorkflowStore,
    workflow_id: str,
    found: Found | None,
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
    checkpoints, rules, stored = Checkpoints(), Rules(on_change=on_change or "reuse"), None
    if found is not None:
        epoch = found.record.epoch
        claim, stored = store.read_epoch(workflow_id, epoch)
        try:
            stored = stored or store.read_older_graph(workflow_id, claim)
        except CorruptedDataError:
            if graph is None:
                raise
        checkpoints = store.read_checkpoints(workflow_id, since_epoch=claim.base_epoch, files=files)
        rules = Rules(
            on_change=on_change or claim.on_change,
            restarts=dict(claim.restarts) | ({from_task: epoch + 1} if from_task else {}),
            known=task_ids_of(stored) if stored else None,
            lost=checkpoints.lost,
        )
    is_of_stored = graph is None
    graph = graph or stored
    if graph is None:
        raise WorkflowNotFoundError(workflow_id)
    task_ids = task_ids_of(graph)
    if from_task:
        check_task(workflow_id, from_task, graph, checkpoints)
    reuse = Reuse(graph, task_ids, checkpoints.records, rules)
    missing = set(checkpoints.records).difference(task_ids)
    return Plan(
        workflow_id=workflow_id,
        status=found.status if found else WorkflowStatus.NONE,
        on_change=rules.on_change,
        from_task=from_task,
        is_of_stored=is_of_stored,
        tasks=list(_planned(reuse, graph, task_ids)),
        dropped=sorted(checkpoints.dropped(missing, rules.known)),
    )


def check_task(workflow_id: str, task_id: str, graph: Graph, checkpoints: Checkpoints) -> None:
    """Return if the graph, or a stored continuation, has the task.

    :raises ValueError: if not.
    """
    task_ids = task_ids_of(graph)
    levels = stored_levels(graph, task_ids, checkpoints.records)
    if not any(task_id in level.task_ids for level in levels):
        raise ValueError(
            f"Workflow {workflow_id!r} has no task {task_id!r} to restart from. Its tasks are "
            f"{list(task_ids)[:20]}."
        )


def task_ids_of(graph: Graph) -> list[str]:
    """The ids of the tasks of a workflow's own graph."""
    return allocate_ids(graph, TaskIds())


def _planned(reuse: Reuse, graph: Graph, task_ids: Sequence[str]) -> Iterator[PlannedTask]:
    pending: list[tuple[Graph, Sequence[str], str, bool]] = [(graph, task_ids, "", True)]
    while pending:
        graph, task_ids, creator, is_needed = pending.pop(0)
        wanted = needed(graph, task_ids, reuse.decisions) if is_needed else set()
        for index, task_id in enumerate(task_ids):
            decision = reuse.decisions[task_id]
            is_reused = decision.verdict is Verdict.REUSED
            action = _ACTIONS[decision.verdict] if is_reused or index in wanted else "skip"
            yield PlannedTask(
                task_id=task_id,
                action=action,
                kind=decision.kind,
                reason=decision.reason if action != "skip" else _not_needed(decision.reason),
                on_change=decision.on_change,
                creator=creator,
                is_forgotten=decision.is_forgotten,
            )
            record = decision.record
            if is_reused and record is not None and record.graph is not None:
                continuation = reuse.continuation_of(record)
                pending.append((continuation, record.task_ids, task_id, index in wanted))


def _not_needed(reason: str) -> str:
    return f"{reason}, and nobody needs its result"
