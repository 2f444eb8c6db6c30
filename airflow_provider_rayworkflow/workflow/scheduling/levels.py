"""A workflow's graph and its stored continuations, and what a restart gives up of them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.model.graph import Graph, NamedFunction, Task, Tasks
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The tasks of a workflow's graph, or of a stored continuation.

    :ivar creator: the task whose continuation it is, ``""`` for none.
    """

    graph: Graph
    task_ids: Sequence[str]
    creator: str = ""

    def after(self, changed: Collection[str]) -> list[str]:
        """The tasks that depend on these, and are none of them."""
        hit = set(changed)
        found = []
        for task, task_id in zip(self.graph.tasks, self.task_ids, strict=True):
            if task_id not in hit and any(self.task_ids[index] in hit for index in task.upstream):
                hit.add(task_id)
                found.append(task_id)
        return found


def levels(
    graph: Graph,
    task_ids: Sequence[str],
    continued: Callable[[str], TaskRecord | None],
    read: Callable[[TaskRecord], Graph],
) -> Iterator[Level]:
    """The graph, then the continuations that it leads to, each after its creator.

    A continuation with an id that a task before it has is left out: that id is the other one's by now. So no
    continuations lead in a circle.

    :param continued: the record of a task whose continuation is to be followed, else None.
    :param read: a record's continuation.
    """
    pending = deque([Level(graph=graph, task_ids=task_ids)])
    seen: set[str] = set()
    while pending:
        level = pending.popleft()
        if not seen.isdisjoint(level.task_ids):
            continue
        seen.update(level.task_ids)
        yield level
        for task_id in level.task_ids:
            record = continued(task_id)
            if record is not None and record.graph is not None:
                pending.append(Level(graph=read(record), task_ids=record.task_ids, creator=task_id))


def continuation_of(record: TaskRecord) -> Graph:
    """The continuation that a task returned, as it was stored.

    :raises CorruptedDataError: when it is not whole.
    """
    key = f"continuation of {record.task_id}"
    graph = Graph.from_bytes(record.graph or b"", key=key)
    if not 0 < len(graph.tasks) == len(record.task_ids):
        raise CorruptedDataError(
            key, f"it has {len(graph.tasks)} tasks and {len(record.task_ids)} ids"
        )
    return graph


def with_functions(graph: Graph, given: Graph) -> Graph:
    """A stored graph with the functions of the given one in the place of those of the same names.

    A function that can be imported is pickled by its name, and so is the one of now anyhow.
    """
    blobs = list(graph.blobs)
    current: dict[int, tuple[int, NamedFunction, NamedFunction]] = {}
    for name, then in graph.functions.items():
        now = given.functions.get(name)
        if now is not None and given.blobs[now.blob] != graph.blobs[then.blob]:
            current[then.blob] = (len(blobs), then, now)
            blobs.append(given.blobs[now.blob])
    if not current:
        return graph

    def with_function(kind: Task) -> Task:
        if kind.function not in current:
            return kind
        blob, then, now = current[kind.function]
        return kind._replace(function=blob, code=now.code if kind.code == then.code else kind.code)

    return replace(graph, tasks=Tasks.of(graph.tasks).with_kinds(with_function), blobs=blobs)


def repeated(task_id: str) -> CorruptedDataError:
    """The error of a task that is of two graphs, so that continuations might lead in a circle."""
    return CorruptedDataError(f"continuation with {task_id}", "it has a task of another graph")


class Restarted(NamedTuple):
    """From when on what a task has stored counts again.

    :ivar epoch: of the latest restart that concerns it.
    :ivar start: the task from which that was.
    """

    epoch: int
    start: str


def restarted(
    graph: Graph,
    task_ids: Sequence[str],
    records: Mapping[str, TaskRecord],
    restarts: Mapping[str, int],
) -> dict[str, Restarted]:
    """The tasks of which earlier checkpoints and saved states don't count because of restarts.

    These are the task that was named and all that depend on it, also where it is part of a
    continuation: then also what takes the result of that. Some may have stored nothing.
    """
    if not restarts:
        return {}
    home = {
        task_id: level
        for level in levels(graph, task_ids, records.get, continuation_of)
        for task_id in level.task_ids
    }
    found: dict[str, Restarted] = {}
    for start, epoch in restarts.items():
        changed = {start}
        void = [start]
        level = home.get(start)
        while level is not None:
            after = level.after(changed)
            void.extend(after)
            if level.task_ids[-1] not in changed.union(after):
                break
            # The task that made these keeps its checkpoint, but has another result.
            changed, level = {level.creator}, home.get(level.creator)
        for task_id in void:
            found[task_id] = max(found.get(task_id, Restarted(0, "")), Restarted(epoch, start))
    return found


def forgotten(found: Mapping[str, Restarted], records: Mapping[str, TaskRecord]) -> dict[str, str]:
    """Those tasks whose checkpoints don't count, each with the task of the restart.

    :param found: of :func:`restarted`. Checkpoints that were made since count.
    """
    return {
        task_id: start
        for task_id, (epoch, start) in found.items()
        if (record := records.get(task_id)) is not None and record.epoch < epoch
    }
