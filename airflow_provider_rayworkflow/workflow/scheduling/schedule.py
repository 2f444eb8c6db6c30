"""What may run next, and what follows from what happened. Pure: no Ray, no clock, no I/O.

A :class:`Schedule` is told what happened *after* it was committed; so nothing depends on a result
that could be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskNotRecoverableError
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Tasks, allocate_ids
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.scheduling.budgets import Failed
from airflow_provider_rayworkflow.workflow.scheduling.decision import (
    REFERS_TO_LOST,
    Decision,
    TaskAction,
    needed,
)
from airflow_provider_rayworkflow.workflow.scheduling.failures import FailureAction
from airflow_provider_rayworkflow.workflow.scheduling.node import NodeState, TaskNode, Tried
from airflow_provider_rayworkflow.workflow.scheduling.running_tasks import RunningTasks
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.scheduling.trigger_rules import end_without_value


class Schedule:
    """The state of one run of a workflow.

    :param snapshot: the graph, and what counts of what earlier runs committed.
    :param tried: of the schedule that this one replaces in the same run: what its tasks have used
        up of their retries stays used up.

    Only tasks whose result is still needed become nodes: a task without a checkpoint whose
    dependents are all committed does not run again.
    """

    def __init__(self, snapshot: Snapshot, tried: Mapping[str, Tried] | None = None) -> None:
        self.tried = dict(tried or {})
        self._ids = snapshot.ids()
        self._ready: deque[TaskNode] = deque()
        self._added: deque[TaskNode] = deque()
        self._to_check: deque[TaskNode] = deque()
        self._has_caught = False
        #: True if a task of it may run though a task upstream has failed.
        self.has_rules = False
        #: How long its tasks may run after a cancel, in seconds.
        self.cleanup_s = 0.0
        self._running = RunningTasks()
        self.total = 0
        self.done = 0
        self.reused = 0
        #: Tasks of earlier runs that this one does not have (yet), committed or not: their creators may run
        #: again and create others, or their continuations may be used later. No other task gets their ids.
        self._dropped = snapshot.checkpoints.records.keys() | snapshot.checkpoints.created
        self._reuse = snapshot.decide()
        #: How many tasks were found to be reused, checked, changed, new or unfinished at the start.
        self.found = dict(self._reuse.counts)
        self.output = self._add(snapshot.graph, snapshot.task_ids, creator=None)
        self._settle()
        self._reuse.forget_records()
        self._ids.avoid(self._dropped)

    # ---- asking

    @property
    def is_finished(self) -> bool:
        return self.output.state is NodeState.DONE

    def is_needless(self, node: TaskNode) -> bool:
        """True if the task ended without a value, or an exception was caught by it or in its place."""
        return node.has_no_value or (self._has_caught and node.is_in_caught)

    def take_ready(self) -> TaskNode | None:
        """The next task to start, now counted as running; None if no task is ready."""
        while self._ready:
            node = self._ready.popleft()
            if node.state is NodeState.READY and self._running.admits(node):
                self._take(node, linear_run=object())
                return node
        return None

    def take_follower(self, node: TaskNode, follower: TaskNode) -> None:
        """Count the task as running, right after this one; see :func:`follower_of`."""
        self._take(follower, linear_run=node.linear_run)

    def _take(self, node: TaskNode, *, linear_run: object) -> None:
        node.state = NodeState.RUNNING
        node.attempts += 1
        node.linear_run = linear_run
        self._running.enter(node)

    def _leave(self, node: TaskNode) -> None:
        self._ready.extend(self._running.leave(node))

    def allocate_ids(self, graph: Graph, creator: TaskNode) -> list[str]:
        """Unique ids for the tasks of a continuation.

        :param creator: the task that returned it. What its former continuation had in the same
            place, and of the same content, keeps its id, and so its checkpoint.
        """
        task_ids = allocate_ids(graph, self._ids)
        if creator.decision.record is not None:
            record, is_stale = creator.decision.record, creator.decision.reason == REFERS_TO_LOST
            found = self._reuse.match(record, graph, refers_to_lost=is_stale)
            for position, task_id in found.items():
                task_ids[position] = task_id
                self._ids.observe(task_id, graph.tasks[position].full_name)
        return task_ids

    # ---- telling what happened

    def returned(self, node: TaskNode, result: Result) -> None:
        """The task's result is on its way to the storage; one that followed it may come next."""
        node.identity = node.identity_of(result)

    def finished(self, node: TaskNode, result: Result) -> list[TaskNode]:
        """The task's result (see :meth:`TaskNode.as_result`) is committed. Returns the tasks that have their result now.

        More than one where the task was the last of a continuation.
        """
        self._leave(node)
        if self.is_needless(node):
            return []
        if not node.checkpoint:
            self.note(node)  # it may be lost, and made again
        return self._resolve(node, result) + self._settle()

    def continued(self, node: TaskNode, graph: Graph, task_ids: Sequence[str]) -> list[TaskNode]:
        """The task returned a graph, which is committed and whose output becomes its result.

        Returns the tasks that have their result now: those of the graph that were there before.
        """
        self._leave(node)
        if self.is_needless(node):
            return []
        self._reuse.review(graph, task_ids, checkpoint=node.checkpoint)
        self._expand(node, graph, task_ids)
        return self._settle()

    def attempt_failed(self, node: TaskNode, failed: Failed) -> FailureAction:
        """An attempt failed; decide what follows and count it. Only the task's own are ever caught."""
        self._leave(node)
        if self.is_needless(node):
            return FailureAction.IGNORE
        if node.count_failure(failed):
            self.note(node)
            return FailureAction.RETRY
        is_caught = failed.cause.is_of_task and self.begin_catch(node)
        return FailureAction.CATCH if is_caught else FailureAction.FAIL

    def begin_catch(self, node: TaskNode) -> bool:
        """True if a task catches an exception of this one; by that, whatever fails beside it from now on."""
        catcher = node.catcher
        if catcher is None or catcher.has_no_value:
            return False
        self._has_caught = catcher.is_caught = True
        return True

    def ended_without_value(self, node: TaskNode, error: Result | None) -> list[TaskNode]:
        """A task failed for good, and that is committed, or it is not to run.

        :param error: its exception as a value; None if it does not run.
        :returns: the tasks that have their result now: checkpoints that hold.
        """
        self._leave(node)
        if self.is_needless(node):
            return []
        for ready in end_without_value(node, error):
            self._begin(ready)
        return self._settle()

    def retry(self, node: TaskNode) -> None:
        """Make a task ready again after a failed attempt."""
        if not self.is_needless(node):
            self._make_ready(node)

    def put_off(self, node: TaskNode) -> None:
        """A task that was taken has to wait for :meth:`retry`."""
        self._leave(node)
        node.attempts -= 1

    def not_begun(self, node: TaskNode) -> None:
        """An attempt did not begin, and does not count."""
        node.attempts -= 1
        self._put_back(node)

    def interrupted(self, node: TaskNode) -> None:
        """An attempt was lost with a Ray task that several shared: it runs again, but alone."""
        node.is_alone = True
        self.note(node)
        self._put_back(node)

    def note(self, node: TaskNode) -> None:
        """Keep how often a task was tried, for the schedule that replaces this one."""
        self.tried[node.task_id] = Tried(node.attempts, node.spent, node.is_alone)

    def _put_back(self, node: TaskNode) -> None:
        self._leave(node)
        if self.is_needless(node):
            return
        if node.waiting_for == 0:
            self._make_ready(node)
        else:
            node.state = NodeState.WAITING  # what it was to follow has not ended

    def caught(self, catcher: TaskNode, result: Result) -> tuple[list[TaskNode], list[TaskNode]]:
        """An exception became a task's result, and that is committed.

        Returns the tasks that have their result now, and the running ones that are of no use
        any more because they belong to the continuation that failed.
        """
        self._leave(catcher)
        if catcher.creator is not None and self.is_needless(catcher.creator):
            return [], []
        useless = [node for node in self._running.nodes if node.is_below(catcher)]
        for node in useless:
            self._leave(node)
            node.state = NodeState.REPLACED
        self._ready = deque(node for node in self._ready if not node.is_below(catcher))
        return self._resolve(catcher, result) + self._settle(), useless

    # ---- building

    def _add(
        self, graph: Graph, task_ids: Sequence[str], *, creator: TaskNode | None, since: int = 0
    ) -> TaskNode:
        """Add those tasks of a graph whose results are needed; returns the last one's node."""
        kinds = Tasks.of(graph.tasks).kinds
        decisions = [self._reuse.take(task_id) for task_id in task_ids]
        nodes = _make_nodes(graph, task_ids, decisions, creator, self.tried)
        if since or self._reuse.has_restarts:
            for node in nodes.values():
                node.saved_since = max(since, self._reuse.saved_since(node.task_id))
        self.has_rules = self.has_rules or any(kind.options.outlives_failures for kind in kinds)
        self.cleanup_s = max([self.cleanup_s, *[kind.options.cleanup_s or 0 for kind in kinds]])
        self.total += len(graph.tasks)
        self.done += len(graph.tasks) - len(nodes)
        self.reused += sum(found.action is TaskAction.REUSED for found in decisions)
        self._dropped.difference_update(task_ids)
        self._added.extend(nodes.values())
        return nodes[len(graph.tasks) - 1]

    def _settle(self) -> list[TaskNode]:
        """Begin with what was added, and use checkpoints; returns the tasks that have their result."""
        # Queues and no recursion: recovered continuations may be nested a million deep.
        resolved: list[TaskNode] = []
        while self._added or self._to_check:
            if self._added:
                node = self._added.popleft()
                if node.decision.action is TaskAction.REUSED:
                    resolved += self._use_record(node)
                elif node.waiting_for == 0:
                    self._begin(node)
            elif not self.is_needless(node := self._to_check.popleft()):
                if node.decision.holds(node.made_of().taken):
                    self.reused += 1
                    resolved += self._use_record(node)
                else:
                    self._make_ready(node)
        return resolved

    def _begin(self, node: TaskNode) -> None:
        """The task has all that it takes."""
        if node.state is not NodeState.WAITING:
            return
        if node.decision.action is TaskAction.CHECKED:
            node.state = NodeState.CHECKING
            self._to_check.append(node)
        else:
            self._make_ready(node)

    def _use_record(self, node: TaskNode) -> list[TaskNode]:
        decision, record, result = node.decision, node.decision.record, node.decision.result
        if node.fingerprints is None:
            node.fingerprints = decision.fingerprints
            node.identity = decision.identity
        node.decision = _USED[decision.action]  # the record need not stay in memory
        if result is not None:
            return self._resolve(node, result)
        if record is None or record.graph is None:
            raise WorkflowTaskNotRecoverableError(node.task_id)
        graph = self._reuse.continuation_of(record)
        for task, task_id in zip(graph.tasks, record.task_ids, strict=True):
            self._ids.observe(task_id, task.full_name)
        if decision.action is TaskAction.CHECKED:
            self._reuse.review(graph, record.task_ids, checkpoint=node.checkpoint)
        self._expand(node, graph, record.task_ids)
        return []

    def _expand(self, node: TaskNode, graph: Graph, task_ids: Sequence[str]) -> None:
        node.state = NodeState.REPLACED
        node.release_inputs()
        self.done += 1
        self._add(graph, task_ids, creator=_holder_of(node), since=node.saved_since)

    def _make_ready(self, node: TaskNode) -> None:
        node.state = NodeState.READY
        self._ready.append(node)

    # ---- results

    def _resolve(self, node: TaskNode, result: Result) -> list[TaskNode]:
        resolved = []
        current: TaskNode | None = node
        while current is not None:
            if current.state is not NodeState.REPLACED:
                self.done += 1
            current.state, current.result = NodeState.DONE, result
            if current is not node or not node.identity:  # else it has been told by `returned`
                current.identity = current.identity_of(result)
            current.release_inputs()
            resolved.append(current)
            for dependent in current.dependents:
                dependent.waiting_for -= 1
                if dependent.waiting_for == 0:
                    self._begin(dependent)
            if not current.is_tail:
                break
            current = current.creator
            if current is not None:
                result = current.as_result(result)
        return resolved


_USED = {action: Decision(action=action, reason="it is used") for action in TaskAction}


def _make_nodes(
    graph: Graph,
    task_ids: Sequence[str],
    decisions: Sequence[Decision],
    creator: TaskNode | None,
    known: Mapping[str, Tried],
) -> dict[int, TaskNode]:
    """The nodes of those tasks of a graph whose results are needed, by their positions.

    :param known: how tasks have fared so far.
    """
    inherited = creator.checkpoint if creator else True
    last = len(graph.tasks) - 1
    nodes: dict[int, TaskNode] = {}
    # In the order of the graph, so that a run and a resume start things in the same order.
    for index in sorted(needed(graph, decisions)):
        task = graph.tasks[index]
        own = task.options.checkpoint
        nodes[index] = TaskNode(
            task_id=task_ids[index],
            task=task,
            graph=graph,
            creator=creator,
            is_tail=index == last,
            checkpoint=inherited if own is None else own,
            decision=decisions[index],
        )
        if (tried := known.get(task_ids[index])) is not None:
            nodes[index].take_over(tried)
    _connect(nodes)
    return nodes


def _holder_of(node: TaskNode) -> TaskNode:
    """The node that a continuation's result goes to: the task's own, or its creator's if that is the same."""
    creator = node.creator
    is_same = (
        creator is not None
        and node.is_tail
        and not (node.catches or node.task.options.takes_failures)
        and node.checkpoint == creator.checkpoint
    )
    return creator if creator is not None and is_same else node


def _connect(nodes: Mapping[int, TaskNode]) -> None:
    for node in nodes.values():
        if node.decision.action is TaskAction.REUSED:
            continue
        node.upstream = [nodes[index] for index in node.task.upstream]
        for upstream in set(node.upstream):
            upstream.dependents.append(node)
            upstream.users += 1
            node.waiting_for += 1
