"""The tasks of a run that run, and how many items of each map may. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


class RunningTasks:
    """Counts the running items of each map, for those that have ``max_concurrency``.

    A task that waits for a place is ready, and holds nothing.

    :ivar nodes: the tasks that run.
    """

    def __init__(self) -> None:
        self.nodes: set[TaskNode] = set()
        self._taken: Counter[TaskNode] = Counter()
        self._waiting: defaultdict[TaskNode, deque[TaskNode]] = defaultdict(deque)

    def admits(self, node: TaskNode) -> bool:
        """True if a ready task may run now. If not, :meth:`leave` of another one gives it."""
        rules, creator = node.task.options.map_rules, node.creator
        if rules is None or rules.max_concurrency is None or creator is None:
            return True
        if self._taken[creator] < rules.max_concurrency:
            return True
        self._waiting[creator].append(node)
        return False

    def enter(self, node: TaskNode) -> None:
        """The task runs."""
        self.nodes.add(node)
        if node.task.options.map_rules is not None and node.creator is not None:
            self._taken[node.creator] += 1

    def leave(self, node: TaskNode) -> list[TaskNode]:
        """A task does not run any more, if it did.

        :returns: the task that waits for its place, if one does.
        """
        if node not in self.nodes:
            return []
        self.nodes.discard(node)
        creator = node.creator
        if node.task.options.map_rules is None or creator is None:
            return []
        self._taken[creator] -= 1
        waiting = self._waiting.get(creator)
        return [waiting.popleft()] if waiting else []
