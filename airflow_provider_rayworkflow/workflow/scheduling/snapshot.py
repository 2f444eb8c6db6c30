"""Which checkpoints of a workflow count: decided here, for all callers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, allocate_ids
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model.records import Form, JsonOutput, Result
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.decision import Decision, TaskAction
from airflow_provider_rayworkflow.workflow.scheduling.levels import Level, continuation_of, levels
from airflow_provider_rayworkflow.workflow.scheduling.reuse import Reuse, Rules


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

    A checkpoint counts if a resume of the claim would use it without running anything. It does not
    count if a restart has given its task up, if its task has changed, or if its task may get other
    inputs. Such a task makes its continuation anew, so the checkpoints of that don't count either.

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
        """Check that the workflow has a task to restart from.

        Also of a continuation whose creator runs again: its tasks may come back.

        :raises ValueError: if it has not.
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

    def restarted_since(self, task_id: str) -> int:
        """The epoch of the latest restart from a task or from one upstream, 0 without one."""
        return self._reuse.saved_since(task_id)

    def counts(self, task_id: str) -> bool:
        """True if the task has a checkpoint, and that counts."""
        return self.record_of(task_id) is not None

    def record_of(self, task_id: str) -> TaskRecord | None:
        """The checkpoint of a task, if it has one that counts.

        Also one whose task took failures: for the run that committed it, it counts, whatever the next
        one finds.
        """
        if task_id not in self.checkpoints.records:
            return None  # nothing needs to be decided for that
        decision = self.decisions.get(task_id)
        record = decision.record if decision else None
        if decision is None or record is None:
            return None
        if decision.action is TaskAction.CHECKED:
            is_of_this_run = record.epoch == self.claim.epoch and record.graph is None
            return record if is_of_this_run else None
        return record if decision.action is TaskAction.REUSED else None

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
        """Raise if a checkpoint is damaged, which may be why a result is missing.

        :raises CorruptedDataError: the first damage.
        """
        if self.checkpoints.damaged:
            raise self.checkpoints.damaged[0]

    @property
    def output_id(self) -> str:
        """The task whose result is the workflow's output."""
        return self.task_ids[-1]

    @property
    def output(self) -> Result | None:
        """The workflow's output; None if it has none that counts."""
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


def ids_of(graph: Graph) -> list[str]:
    """The ids of the tasks of a workflow's own graph."""
    return allocate_ids(graph, TaskIds())
