"""What becomes of a task when its workflow goes on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, OnChange, Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord

#: Why a map runs again whose items have other options: no change, as what they give counts on.
OTHER_OPTIONS = "its items have other options"

#: Why the result of a map is gathered again, or a map over it runs again: no change either.
REFERS_TO_LOST = "a value that its result refers to is lost"


class TaskAction(Enum):
    """What becomes of a task."""

    #: Its checkpoint counts.
    REUSED = "reused"
    #: Its checkpoint counts if the tasks upstream that run give the results that it took.
    CHECKED = "checked"
    #: It runs, if its result is needed.
    RUNS = "runs"


class Decision(NamedTuple):
    """What becomes of a task, and why.

    :ivar reason: for people.
    :ivar record: the checkpoint that is used, is checked, or has become void by a change.
    :ivar result: of the record, as its dependents get it; None if it is a continuation.
    :ivar identity: of the result of a task that is reused, else ``""``.
    :ivar is_new: the graph of the run before did not have the task.
    :ivar is_forgotten: its checkpoint does not count because the workflow was restarted from it or
        from a task upstream.
    :ivar on_change: the policy that holds for the task.
    :ivar fingerprints: of the task now; ``taken`` is not known yet. None where no checkpoint is
        compared with them.
    :ivar catches: the task catches exceptions, also of its continuation.
    """

    action: TaskAction
    reason: str
    record: TaskRecord | None = None
    result: Result | None = None
    identity: str = ""
    is_new: bool = False
    is_forgotten: bool = False
    on_change: OnChange = "reuse"
    fingerprints: Fingerprints | None = None
    catches: bool = False

    @property
    def kind(self) -> str:
        """How it is counted: a field of :class:`ReuseCounts`."""
        if self.action is not TaskAction.RUNS:
            return str(self.action.value)
        has_changed = self.record is not None and self.reason not in (OTHER_OPTIONS, REFERS_TO_LOST)
        if has_changed or self.is_forgotten:
            return "changed"
        return "new" if self.is_new else "unfinished"

    def is_by_restart(self, since: int) -> bool:
        """True if a task runs because a person wants it to.

        :param since: the epoch of the latest restart from it, from a task upstream, or from one that it is
            part of the continuation of; 0 without one.
        """
        return since > 0 and (self.record is None or self.record.epoch < since)

    def holds(self, taken: str) -> bool:
        """True if a checked task took just these results: its checkpoint counts.

        :param taken: the combined fingerprint of the results that it would take now.
        """
        stored = self.record.fingerprints if self.record else None
        return stored is not None and stored.taken == taken != ""


def needed(graph: Graph, decisions: Sequence[Decision]) -> set[int]:
    """The positions of the tasks whose results the graph's last task needs, with its own.

    :param decisions: one for each task, in the graph's order.
    """
    wanted: set[int] = set()
    pending = [len(graph.tasks) - 1]
    while pending:
        index = pending.pop()
        if index not in wanted:
            wanted.add(index)
            if decisions[index].action is not TaskAction.REUSED:
                pending.extend(graph.tasks[index].upstream)
    return wanted
