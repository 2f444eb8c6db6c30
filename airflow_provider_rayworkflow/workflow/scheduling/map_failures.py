"""The items of maps that failed, and how many of them may. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_rayworkflow.workflow.exceptions import MapFailedError
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode

#: How many failed items an error names.
SHOWN_ITEMS = 10

_MAX_SHOWN_LENGTH = 300
#: Of these, the storage or the cluster is to blame: no item fails by them.
_NOT_OF_ITEMS = (Cause.SYSTEM, Cause.NODE_LOST)


@dataclass(slots=True)
class _Map:
    failed: set[str] = field(default_factory=set)
    shown: list[str] = field(default_factory=list)
    error: MapFailedError | None = None
    is_told: bool = False


class MapFailures:
    """Counts the failed items of each map of one run."""

    def __init__(self) -> None:
        self._maps: dict[TaskNode, _Map] = {}
        self._has_error = False

    def counts(self, node: TaskNode, failure: TaskFailure) -> TaskNode | None:
        """The item that fails with this task, if its failure is one that is counted."""
        item = node.counted_item
        if item is None or item.creator is None or failure.cause in _NOT_OF_ITEMS:
            return None
        return item

    def note(self, item: TaskNode, failure: TaskFailure) -> None:
        """Count the failure of an item, once."""
        rules, creator = item.task.options.map_rules, item.creator
        if rules is None or creator is None:
            return
        known = self._maps.setdefault(creator, _Map())
        if item.task_id in known.failed:
            return
        known.failed.add(item.task_id)
        if len(known.shown) < SHOWN_ITEMS:
            known.shown.append(f"{item.task_id}: {failure}"[:_MAX_SHOWN_LENGTH])
        if known.error is None and len(known.failed) > rules.max_failed:
            self._has_error = True
            known.error = MapFailedError(
                item.task.name,
                failed=len(known.failed),
                items=rules.items,
                max_failed=rules.max_failed,
                first=known.shown,
            )

    def take_error(self, item: TaskNode) -> MapFailedError | None:
        """The error of an item's map, if more items have failed than may; given once."""
        known = self._maps.get(item.creator) if item.creator else None
        if known is None or known.error is None or known.is_told:
            return None
        known.is_told = True
        return known.error

    def is_of_failed(self, node: TaskNode) -> bool:
        """True for a task of a map that has failed: it is of no use any more."""
        if not self._has_error:
            return False
        current: TaskNode | None = node
        while current is not None and (creator := current.creator) is not None:
            known = self._maps.get(creator)
            if known is not None and known.error is not None and current.task.item:
                return True
            current = creator
        return False


def result_task_of(item: TaskNode) -> TaskNode:
    """The task that gives the result of an item's map."""
    node = item
    while not (node.is_tail and node.creator is item.creator) and node.dependents:
        node = node.dependents[0]
    return node
