"""What is drawn of a workflow's graph: tasks, or groups of tasks where there are many. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_rayworkflow.plugin.tasks import STATES, TaskView

Json = dict[str, Any]

#: Up to so many tasks each is drawn by itself.
MAX_SINGLE = 60
#: More groups than that are put together further, by their place in the graph.
MAX_NODES = 150

# What tells the tasks of a loop apart: ``square_17``, ``load[3]``, ``day-2026-11-24``.
_NUMBERING = re.compile(r"(?:[\s_.:#\-]*[\[(]?\d+[\])]?)+$")


def draw(views: Sequence[TaskView]) -> Json:
    """The graph as JSON for the page's script.

    ``{"nodes": [{"id", "label", "state", "count", "states", "task"}], "edges": [[from, to, kind]]}``

    ``id`` is a number. ``task`` is there for a single task; ``states`` counts a group's tasks by
    state, and ``state`` is the one that most needs a look. ``kind`` is ``"takes"``, or
    ``"makes"`` from a task to those of the graph that it returned.
    """
    group_of = _grouping(views)
    members: dict[str, list[TaskView]] = defaultdict(list)
    for view in views:
        members[group_of[view.task_id]].append(view)
    ids = {group: number for number, group in enumerate(members)}
    return {
        "nodes": [_node(ids[group], group, tasks) for group, tasks in members.items()],
        "edges": _edges(views, lambda task_id: ids[group_of[task_id]]),
    }


def members(views: Sequence[TaskView], label: str) -> list[TaskView]:
    """The tasks of the group with this label."""
    group_of = _grouping(views)
    return [view for view in views if group_of[view.task_id].removesuffix("\0") == label]


def _grouping(views: Sequence[TaskView]) -> dict[str, str]:
    """The group of each task, by id; a task's own id where it is drawn by itself."""
    if len(views) <= MAX_SINGLE:
        return {view.task_id: view.task_id for view in views}
    by_name = {view.task_id: _NUMBERING.sub("", view.name) or view.name for view in views}
    sizes = Counter(by_name.values())
    if len(sizes) <= MAX_NODES:
        return {
            view.task_id: view.task_id
            if sizes[by_name[view.task_id]] == 1
            # Not an id of another task that happens to be called so.
            else f"{by_name[view.task_id]}\0"
            for view in views
        }
    levels = _levels(views)
    width = max(1, -(-(max(levels.values()) + 1) // MAX_NODES))
    return {task_id: f"level {level // width + 1}\0" for task_id, level in levels.items()}


def _levels(views: Sequence[TaskView]) -> Mapping[str, int]:
    """How many tasks are upstream of each, on the longest way."""
    levels: dict[str, int] = {}
    for view in views:
        above = [levels[task_id] for task_id in (*view.takes, view.creator) if task_id in levels]
        levels[view.task_id] = max(above, default=-1) + 1
    return levels


def _node(number: int, group: str, tasks: Sequence[TaskView]) -> Json:
    states = Counter(task.state for task in tasks)
    node: Json = {
        "id": number,
        "label": group.removesuffix("\0"),
        "state": min(states, key=STATES.index),
        "count": len(tasks),
        "states": [[state, states[state]] for state in STATES if states[state]],
    }
    if not group.endswith("\0"):
        [task] = tasks
        node |= {
            "task": task.task_id,
            "attempt": task.attempt,
            "started_at": task.started_at,
            "ended_at": task.ended_at,
        }
    return node


def _edges(views: Sequence[TaskView], number_of: Callable[[str], int]) -> list[list[Any]]:
    known = {view.task_id: view for view in views}
    edges: dict[tuple[int, int, str], None] = {}
    for view in views:
        target = number_of(view.task_id)
        for upstream in view.takes:
            edges[number_of(_giver(known, upstream)), target, "takes"] = None
        if view.creator and not view.takes:
            edges[number_of(view.creator), target, "makes"] = None
    return [[source, target, kind] for source, target, kind in edges if source != target]


def _giver(known: Mapping[str, TaskView], task_id: str) -> str:
    """The task that has the result in the end: perhaps one of a graph that the task returned."""
    seen = {task_id}
    while (gives := known[task_id].gives) in known and gives not in seen:
        seen.add(gives)
        task_id = gives
    return task_id
