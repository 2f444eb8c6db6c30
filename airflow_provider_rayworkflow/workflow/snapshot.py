"""Which checkpoints of a workflow count: decided here, for all who ask.

A schedule begins from a snapshot; plans, outputs, metadata, sensors, the command line and pages
show one. Reading is apart from deciding: :class:`Snapshot` is pure over what was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.graph import Graph, Task, allocate_ids
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.levels import Level, continuation_of, levels
from airflow_provider_rayworkflow.workflow.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model import (
    Form,
    JsonOutput,
    OnChange,
    Result,
    StatusRecord,
)
from airflow_provider_rayworkflow.workflow.reuse import Decision, Reuse, Rules, Verdict
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Checkpoints,
    Claim,
    Found,
    TaskRecord,
    WorkflowStore,
    next_claim,
)

log = get_logger(__name__)


class Placed(NamedTuple):
    """A task of a snapshot.

    :ivar takes: ids of the tasks whose results it takes.
    :ivar creator: the task whose continuation it is of, ``""`` for none.
    :ivar record: its checkpoint if that counts, else None.
    """

    task_id: str
    task: Task
    takes: tuple[str, ...]
    creator: str
    record: TaskRecord | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A claim with its graph, ids, the checkpoints that count, and the output.

    A checkpoint counts if a resume of the claim would use it without running anything. Of a task
    that was given up by a restart, that has changed, or that may get other inputs, none does; nor
    of the tasks of its continuation, which it makes anew.

    :ivar checkpoints: all that is committed since the claim's ``base_epoch``.
    :ivar known: ids of the tasks of the graph of the run before; None if they are not known.
    :ivar is_successful: the run of the claim was: then what gave its output counts.
    """

    claim: Claim
    graph: Graph
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    known: Collection[str] | None = None
    is_successful: bool = False

    # ---- tasks

    @cached_property
    def task_ids(self) -> Sequence[str]:
        """Ids of the tasks of the workflow's own graph, in its order."""
        return allocate_ids(self.graph, self._ids)

    @cached_property
    def _ids(self) -> TaskIds:
        return TaskIds()

    def ids(self) -> TaskIds:
        """What gives ids to the tasks of continuations, the graph's own ones being given."""
        _ = self.task_ids
        return self._ids.copy()

    def levels(self) -> Iterator[Level]:
        """The graph and the continuations that count, each after its creator."""
        return levels(self.graph, self.task_ids, self.record_of, self._reuse.continuation_of)

    def tasks(self) -> Iterator[Placed]:
        """All tasks that are known, each after those that it takes and after its creator."""
        for level in self.levels():
            for task, task_id in zip(level.graph.tasks, level.task_ids, strict=True):
                takes = tuple([level.task_ids[index] for index in task.upstream])
                record = self.record_of(task_id)
                yield Placed(task_id, task, takes, level.creator, record)

    def check_restart(self, task_id: str) -> None:
        """Return if there is such a task to restart from.

        Also of a continuation whose creator runs again: its tasks may come back.

        :raises ValueError: if not.
        """
        found = levels(self.graph, self.task_ids, self._not_forgotten, continuation_of)
        if not any(task_id in level.task_ids for level in found):
            raise ValueError(
                f"Workflow {self.claim.workflow_id!r} has no task {task_id!r} to restart from. "
                f"Its tasks are {list(self.task_ids)[:20]}."
            )

    def _not_forgotten(self, task_id: str) -> TaskRecord | None:
        decision = self.decisions.get(task_id)
        is_forgotten = decision is not None and decision.is_forgotten
        return None if is_forgotten else self.checkpoints.records.get(task_id)

    def restarted(self, task_id: str) -> Snapshot:
        """The snapshot of a claim that restarts from a task, before anything of it has run.

        :raises ValueError: when there is no such task.
        """
        self.check_restart(task_id)
        restarts = {**self.claim.restarts, task_id: self.claim.epoch + 1}
        claim = replace(self.claim, epoch=self.claim.epoch + 1, restarts=restarts)
        return replace(self, claim=claim, is_successful=False)

    # ---- what counts

    def decide(self) -> Reuse:
        """The decisions about all tasks, for a schedule to go on from."""
        return Reuse(self.graph, self.task_ids, self.checkpoints.records, self._rules)

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """What becomes of each task at a resume, and why."""
        return self._reuse.decisions

    def counts(self, task_id: str) -> bool:
        """True if the task has a checkpoint, and that counts."""
        return self.record_of(task_id) is not None

    def record_of(self, task_id: str) -> TaskRecord | None:
        """The checkpoint of a task, if it has one that counts."""
        if task_id not in self.checkpoints.records:
            return None  # nothing needs to be decided for that
        decision = self.decisions.get(task_id)
        is_reused = decision is not None and decision.verdict is Verdict.REUSED
        return decision.record if decision and is_reused else None

    def result_of(self, task_id: str) -> Result | None:
        """The result of a task, through its continuations; None if none counts."""
        catches = False
        while (record := self.record_of(task_id)) is not None:
            decision = self.decisions[task_id]
            if (result := decision.result) is not None:
                is_plain = result.form is Form.VALUE
                return result._replace(form=Form.CAUGHT_VALUE) if catches and is_plain else result
            catches |= decision.catches
            task_id = record.task_ids[-1]
        return None

    def has_finished(self, task_id: str) -> bool:
        """True if the task has a result that counts."""
        return self.result_of(task_id) is not None

    def raise_damage(self) -> None:
        """Return if nothing is damaged; else damage may be why a result is missing.

        :raises CorruptedDataError: then.
        """
        if self.checkpoints.damaged:
            raise self.checkpoints.damaged[0]

    @property
    def output_id(self) -> str:
        """The task whose result is the workflow's output."""
        return self.task_ids[-1]

    @property
    def output(self) -> Result | None:
        """The workflow's output; None if there is none that counts."""
        return self.result_of(self.output_id)

    @property
    def committed_json(self) -> JsonOutput | None:
        """The latest output as JSON, where it was committed with it.

        Also of one that does not count yet: a run may find that it holds.
        """
        chain = [self.checkpoints.records[task_id] for task_id in self._committed_chain()]
        return chain[-1].json_output if chain else None

    @property
    def dropped(self) -> set[str]:
        """Ids of committed tasks that the graph had before and does not have any more.

        Where something is damaged it is not known whose continuation a task may be of: then only
        those count that are known to be of the graph itself.
        """
        dropped = set(self.checkpoints.records).difference(self.task_ids, self.checkpoints.created)
        return dropped.intersection(self.known or ()) if self.checkpoints.damaged else dropped

    @cached_property
    def _reuse(self) -> Reuse:
        return self.decide()

    @cached_property
    def _rules(self) -> Rules:
        return Rules(
            on_change=self.claim.on_change,
            restarts=self.claim.restarts,
            known=self.known,
            lost=self.checkpoints.lost,
            graph_epoch=self.claim.graph_epoch,
            final=set(self._committed_chain()) if self.is_successful else (),
        )

    def _committed_chain(self) -> Iterator[str]:
        task_id, records, seen = self.output_id, self.checkpoints.records, set[str]()
        while task_id not in seen and (record := records.get(task_id)) is not None:
            seen.add(task_id)
            yield task_id
            if record.graph is None:
                return
            task_id = record.task_ids[-1]


# ---- reading


def read_snapshot(
    store: WorkflowStore, record: StatusRecord, *, files: Sequence[WorkflowFile] | None = None
) -> Snapshot:
    """How a workflow stands: a read of the claim, and of the graph if the claim has none.

    :param files: what lies in the workflow's folder; None if that has to be asked.
    :raises StorageError: when that can't be read.
    """
    claim, graph = store.read_run(record.workflow_id, record.epoch)
    return Snapshot(
        claim=claim,
        graph=graph,
        checkpoints=read_committed(store, claim, files=files),
        is_successful=record.status is WorkflowStatus.SUCCESSFUL,
    )


def read_next(
    store: WorkflowStore,
    workflow_id: str,
    found: Found | None,
    graph: Graph | None,
    *,
    on_change: OnChange | None = None,
    from_task: str = "",
    files: Sequence[WorkflowFile] | None = None,
) -> Snapshot:
    """What a run or resume would begin with.

    :param found: how the workflow stands, None for nothing stored.
    :param graph: None for the stored one.
    :param files: as for :func:`read_snapshot`.
    :raises WorkflowNotFoundError: when nothing is stored, and no graph is given.
    :raises ValueError: when there is no task of the name ``from_task``.
    """
    earlier, stored, checkpoints = None, None, Checkpoints()
    if found is not None and graph is None:
        earlier, stored = store.read_run(workflow_id, found.record.epoch)
    elif found is not None:
        earlier, stored = read_earlier(store, workflow_id, found.record.epoch)
    if earlier is not None:
        checkpoints = read_committed(store, earlier, files=files)
    run = graph or stored
    if run is None:
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
        checkpoints=checkpoints,
        known=ids_of(stored) if stored else None,
    )
    if from_task:
        snapshot.check_restart(from_task)
    return snapshot


def read_committed(
    store: WorkflowStore, claim: Claim, *, files: Sequence[WorkflowFile] | None = None
) -> Checkpoints:
    """All that is committed of the run that a claim is of, whether or not it counts."""
    return store.read_checkpoints(claim.workflow_id, since_epoch=claim.base_epoch, files=files)


def read_earlier(store: WorkflowStore, workflow_id: str, epoch: int) -> tuple[Claim, Graph | None]:
    """The claim and the graph of a run whose graph is replaced; None for a damaged graph."""
    claim, graph = store.read_epoch(workflow_id, epoch)
    try:
        return claim, graph or store.read_older_graph(workflow_id, claim)
    except CorruptedDataError as exc:
        log.warning("Workflow %s: %s The graph given now is run.", workflow_id, exc)
        return claim, None


def ids_of(graph: Graph) -> list[str]:
    """The ids of the tasks of a workflow's own graph."""
    return allocate_ids(graph, TaskIds())
