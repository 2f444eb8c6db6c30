"""What may run next, and what follows from what happened. Pure: no Ray, no clock, no I/O.

A :class:`Schedule` is told what happened *after* it was committed; so nothing depends on a result
that could be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskNotRecoverableError
from airflow_provider_rayworkflow.workflow.model.fingerprints import combine
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, allocate_ids
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, Form, Result
from airflow_provider_rayworkflow.workflow.scheduling.reuse import (
    Decision,
    Known,
    Verdict,
    derived_identity,
    literals_of,
    made_of,
)
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot


class _State(Enum):
    WAITING = auto()  # for results of other tasks
    CHECKING = auto()  # whether they are those that its checkpoint is made of
    READY = auto()
    RUNNING = auto()
    REPLACED = auto()  # by a continuation, whose output will be its result
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Tried:
    """How a task has fared that has no result yet; the fields are those of :class:`Node`."""

    attempts: int
    failures: int
    errors: int
    is_alone: bool


@dataclass(slots=True, eq=False)
class Node:
    """One task of a running workflow.

    :ivar graph: the graph that it is of; its blobs are the task's.
    :ivar creator: the node whose continuation it belongs to.
    :ivar is_tail: its result is also the result of its creator.
    :ivar checkpoint: as its options say, or else as its creator.
    :ivar attempts: how often it was started in this run.
    :ivar failures: how often it failed of what ``max_retries`` allows.
    :ivar errors: how often it failed of what ``retry`` allows.
    :ivar is_caught: an exception is its result, or will be once that is committed.
    :ivar users: dependents that have not ended; the result is dropped with the last one.
    :ivar is_alone: it shares no Ray task any more.
    :ivar run: the linear run that it was started in; see :meth:`Schedule.follower`.
    :ivar covered: how many of its inputs the run ``covered_by`` gives.
    :ivar decision: what becomes of its checkpoint of an earlier run.
    :ivar fingerprints: what its result is made of, known once it has all that it takes.
    :ivar identity: of its result; it outlives that in memory.
    """

    task_id: str
    task: Task
    graph: Graph
    creator: Node | None
    is_tail: bool
    checkpoint: bool
    decision: Decision
    state: _State = _State.WAITING
    upstream: list[Node] = field(default_factory=list)
    dependents: list[Node] = field(default_factory=list)
    waiting_for: int = 0
    users: int = 0
    result: Result | None = None
    attempts: int = 0
    failures: int = 0
    errors: int = 0
    is_caught: bool = False
    is_alone: bool = False
    run: object = None
    covered: int = 0
    covered_by: object = None
    fingerprints: Fingerprints | None = None
    identity: str = ""

    @property
    def catches(self) -> bool:
        return self.task.options.catch_exceptions

    @property
    def is_output(self) -> bool:
        """True if its result is the workflow's output."""
        node = self
        while node.creator is not None:
            if not node.is_tail:
                return False
            node = node.creator
        return node.is_tail

    @property
    def is_found(self) -> bool:
        """True if stored continuations lead to it from the workflow's own graph."""
        node = self.creator
        while node is not None and node.checkpoint:
            node = node.creator
        return node is None

    def as_result(self, result: Result) -> Result:
        """What the task's own value, or that of its continuation, is as its result.

        A value is wrapped once, however many tasks of a continuation catch exceptions.
        """
        if self.catches and result.form is Form.VALUE:
            return result._replace(form=Form.CAUGHT_VALUE)
        return result

    def as_output(self, result: Result) -> Result:
        """What its result is as the workflow's output; see :attr:`is_output`."""
        node = self.creator
        while node is not None:
            result, node = node.as_result(result), node.creator
        return result

    def made_of(self) -> Fingerprints:
        """What goes into its checkpoint's fingerprints. It has all that it takes."""
        if self.fingerprints is None:
            decided = self.decision.fingerprints
            if decided is None:
                upstream = [other.known for other in self.upstream]
                self.fingerprints = made_of(
                    self.task, self.task_id, literals_of(self.task), upstream
                )
            else:
                taken = combine(*[other.identity for other in self.upstream])
                self.fingerprints = decided._replace(taken=taken)
        return self.fingerprints

    @property
    def known(self) -> Known:
        """What those that take its result have to know of it, which it has."""
        now = self.made_of()
        return Known(now.recipe, identity=self.identity, code=now.code, keeps=self.checkpoint)

    def take_over(self, tried: Tried) -> None:
        """Go on counting where the task's node in a former schedule stopped."""
        self.attempts, self.failures = tried.attempts, tried.failures
        self.errors, self.is_alone = tried.errors, tried.is_alone

    def wait_s(self, random: float) -> float:
        """How long to wait before the next attempt after an exception."""
        retry = self.task.options.retry
        return retry.wait_s(self.errors, random) if retry else 0.0

    @property
    def can_share(self) -> bool:
        """True if it may run in one Ray task with others.

        One that asks for anything of its own may not, nor one that must not run twice because
        another one took its worker along.
        """
        options = self.task.options
        asks = self.is_alone or options.isolate or options.is_event or self.task.shown_options
        return not asks and options.max_retries != 0


class FailureAction(Enum):
    """What follows from a failed attempt."""

    RETRY = auto()
    #: The nearest task that catches exceptions gets it as its result.
    CATCH = auto()
    FAIL = auto()
    #: Nobody needs the task any more.
    IGNORE = auto()


class Schedule:
    """The state of one run of a workflow.

    :param snapshot: the graph, and what counts of what earlier runs committed.
    :param tried: of the schedule that this one replaces in the same run: what its tasks have used
        up of their retries stays used up.

    Only tasks whose result is still needed become nodes: a task without a checkpoint whose
    dependents are all committed does not run again.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        tried: Mapping[str, Tried] | None = None,
    ) -> None:
        self.tried = dict(tried or {})
        self._ids = snapshot.ids()
        self._ready: deque[Node] = deque()
        self._added: deque[Node] = deque()
        self._to_check: deque[Node] = deque()
        self._has_caught = False
        self.running: set[Node] = set()
        self.total = 0
        self.done = 0
        self.reused = 0
        #: Committed tasks that the graph does not have any more, or whose creator was not
        #: committed: it runs again, and may create others.
        self._dropped = set(snapshot.checkpoints.records)
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
        return self.output.state is _State.DONE

    def is_needless(self, node: Node) -> bool:
        """True if the task belongs to a continuation whose exception was caught, or caught one."""
        current = node if self._has_caught else None
        while current is not None:
            if current.is_caught:
                return True
            current = current.creator
        return False

    def take_ready(self) -> Node | None:
        """The next task to start, now counted as running; None if there is none."""
        while self._ready:
            node = self._ready.popleft()
            if node.state is _State.READY:
                self._take(node, run=object())
                return node
        return None

    def follower(self, node: Node) -> Node | None:
        """The one task that will be ready when this one, and all before it in its run, have ended.

        None if there is none, or more than one: those may run side by side. Ask once for each
        attempt; :meth:`take_follower` makes it part of the run.
        """
        ready = []
        for dependent in node.dependents:
            if dependent.covered_by is not node.run:
                dependent.covered_by, dependent.covered = node.run, 0
            dependent.covered += 1
            if dependent.covered == dependent.waiting_for and dependent.state is _State.WAITING:
                ready.append(dependent)
        # One that is checked may turn out to need no run.
        if len(ready) != 1 or ready[0].decision.verdict is not Verdict.RUNS:
            return None
        return ready[0]

    def take_follower(self, node: Node, follower: Node) -> None:
        """Count the task as running, right after this one."""
        self._take(follower, run=node.run)

    def _take(self, node: Node, *, run: object) -> None:
        node.state = _State.RUNNING
        node.attempts += 1
        node.run = run
        self.running.add(node)

    def allocate_ids(self, graph: Graph, creator: Node) -> list[str]:
        """Unique ids for the tasks of a continuation.

        :param creator: the task that returned it. What its former continuation had in the same
            place, and of the same content, keeps its id, and so its checkpoint.
        """
        task_ids = allocate_ids(graph, self._ids)
        if creator.decision.record is not None:
            for position, task_id in self._reuse.match(creator.decision.record, graph).items():
                task_ids[position] = task_id
        return task_ids

    # ---- telling what happened

    def returned(self, node: Node, result: Result) -> None:
        """The task's result is on its way to the storage; one that followed it may come next."""
        node.identity = _identity(node, result)

    def finished(self, node: Node, result: Result) -> list[Node]:
        """The task's result (see :meth:`Node.as_result`) is committed. Returns the tasks that have their result now.

        More than one where the task was the last of a continuation.
        """
        self.running.discard(node)
        if self.is_needless(node):
            return []
        return self._resolve(node, result) + self._settle()

    def continued(self, node: Node, graph: Graph, task_ids: Sequence[str]) -> list[Node]:
        """The task returned a graph, which is committed and whose output becomes its result.

        Returns the tasks that have their result now: those of the graph that were there before.
        """
        self.running.discard(node)
        if self.is_needless(node):
            return []
        self._reuse.review(graph, task_ids, checkpoint=node.checkpoint)
        self._expand(node, graph, task_ids)
        return self._settle()

    def attempt_failed(self, node: Node, *, system: bool, retryable: bool = True) -> FailureAction:
        """An attempt failed; decide what follows and count it.

        :param system: a lost worker, node or object; else an exception of the task.
        :param retryable: the exception is one that the author wants retried; what the system
            lacked may be there at another attempt.
        """
        self.running.discard(node)
        if self.is_needless(node):
            return FailureAction.IGNORE
        if _may_retry(node, system=system, retryable=retryable):
            self._note(node)
            return FailureAction.RETRY
        catcher = None if system else self.catcher(node)
        if catcher is None:
            return FailureAction.FAIL
        # By this exception, whatever fails beside it until that is committed.
        self._has_caught = catcher.is_caught = True
        return FailureAction.CATCH

    def retry(self, node: Node) -> None:
        """Make a task ready again after a failed attempt."""
        if not self.is_needless(node):
            self._make_ready(node)

    def not_begun(self, node: Node) -> None:
        """An attempt did not begin, and does not count."""
        node.attempts -= 1
        self._put_back(node)

    def interrupted(self, node: Node) -> None:
        """An attempt was lost with a Ray task that several shared: it runs again, but alone."""
        node.is_alone = True
        self._note(node)
        self._put_back(node)

    def _note(self, node: Node) -> None:
        self.tried[node.task_id] = Tried(node.attempts, node.failures, node.errors, node.is_alone)

    def _put_back(self, node: Node) -> None:
        self.running.discard(node)
        if self.is_needless(node):
            return
        if node.waiting_for == 0:
            self._make_ready(node)
        else:
            node.state = _State.WAITING  # what it was to follow has not ended

    def catcher(self, node: Node) -> Node | None:
        """The nearest task that catches an exception of this one: itself or a creator."""
        current: Node | None = node
        while current is not None and not current.catches:
            current = current.creator
        return current

    def caught(self, catcher: Node, result: Result) -> tuple[list[Node], list[Node]]:
        """An exception became a task's result, and that is committed.

        Returns the tasks that have their result now, and the running ones that are of no use
        any more because they belong to the continuation that failed.
        """
        self.running.discard(catcher)
        if catcher.creator is not None and self.is_needless(catcher.creator):
            return [], []
        useless = [node for node in self.running if _is_below(node, catcher)]
        for node in useless:
            self.running.discard(node)
            node.state = _State.REPLACED
        self._ready = deque(node for node in self._ready if not _is_below(node, catcher))
        return self._resolve(catcher, result) + self._settle(), useless

    # ---- building

    def _add(self, graph: Graph, task_ids: Sequence[str], *, creator: Node | None) -> Node:
        """Add those tasks of a graph whose results are needed; returns the last one's node."""
        inherited = creator.checkpoint if creator else True
        last = len(graph.tasks) - 1
        decisions = [self._reuse.take(task_id) for task_id in task_ids]
        nodes: dict[int, Node] = {}
        pending = [last]
        while pending:
            index = pending.pop()
            if index in nodes:
                continue
            task = graph.tasks[index]
            own = task.options.checkpoint
            nodes[index] = Node(
                task_id=task_ids[index],
                task=task,
                graph=graph,
                creator=creator,
                is_tail=index == last,
                checkpoint=inherited if own is None else own,
                decision=decisions[index],
            )
            if decisions[index].verdict is not Verdict.REUSED:
                pending.extend(task.upstream)
            if (tried := self.tried.get(task_ids[index])) is not None:
                nodes[index].take_over(tried)
        self._connect(nodes)
        self.total += len(graph.tasks)
        self.done += len(graph.tasks) - len(nodes)
        self.reused += sum(found.verdict is Verdict.REUSED for found in decisions)
        self._dropped.difference_update(task_ids)
        # In the order of the graph, so that a run and a resume start things in the same order.
        self._added.extend(nodes[index] for index in sorted(nodes))
        return nodes[last]

    def _connect(self, nodes: Mapping[int, Node]) -> None:
        for _, node in sorted(nodes.items()):  # so that dependents start in the graph's order
            if node.decision.verdict is Verdict.REUSED:
                continue
            node.upstream = [nodes[index] for index in node.task.upstream]
            for upstream in set(node.upstream):
                upstream.dependents.append(node)
                upstream.users += 1
                node.waiting_for += 1

    def _settle(self) -> list[Node]:
        """Begin with what was added, and use checkpoints; returns the tasks that have their result."""
        # Queues and no recursion: recovered continuations may be nested a million deep.
        resolved: list[Node] = []
        while self._added or self._to_check:
            if self._added:
                node = self._added.popleft()
                if node.decision.verdict is Verdict.REUSED:
                    resolved += self._use_record(node)
                elif node.waiting_for == 0:
                    self._begin(node)
            elif not self.is_needless(node := self._to_check.popleft()):
                if self._reuse.holds(node.decision, node.made_of().taken):
                    self.reused += 1
                    resolved += self._use_record(node)
                else:
                    self._make_ready(node)
        return resolved

    def _begin(self, node: Node) -> None:
        """The task has all that it takes."""
        if node.state is not _State.WAITING:
            return
        if node.decision.verdict is Verdict.CHECKED:
            node.state = _State.CHECKING
            self._to_check.append(node)
        else:
            self._make_ready(node)

    def _use_record(self, node: Node) -> list[Node]:
        decision, record, result = node.decision, node.decision.record, node.decision.result
        if node.fingerprints is None:
            node.fingerprints = decision.fingerprints
            node.identity = decision.identity
        node.decision = _USED[decision.verdict]  # the record need not stay in memory
        if result is not None:
            return self._resolve(node, result)
        if record is None or record.graph is None:
            raise WorkflowTaskNotRecoverableError(node.task_id)
        graph = self._reuse.continuation_of(record)
        for task, task_id in zip(graph.tasks, record.task_ids, strict=True):
            self._ids.observe(task_id, task.name)
        if decision.verdict is Verdict.CHECKED:
            self._reuse.review(graph, record.task_ids, checkpoint=node.checkpoint)
        self._expand(node, graph, record.task_ids)
        return []

    def _expand(self, node: Node, graph: Graph, task_ids: Sequence[str]) -> None:
        node.state = _State.REPLACED
        self._release_inputs(node)
        self.done += 1
        holder = node
        creator = node.creator
        if (
            creator is not None
            and node.is_tail
            and not node.catches
            and node.checkpoint == creator.checkpoint
        ):
            holder = creator
        self._add(graph, task_ids, creator=holder)

    def _make_ready(self, node: Node) -> None:
        node.state = _State.READY
        self._ready.append(node)

    # ---- results

    def _resolve(self, node: Node, result: Result) -> list[Node]:
        resolved = []
        current: Node | None = node
        while current is not None:
            if current.state is not _State.REPLACED:
                self.done += 1
            current.state, current.result = _State.DONE, result
            if current is not node or not node.identity:  # else it has been told by `returned`
                current.identity = _identity(current, result)
            self._release_inputs(current)
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

    def _release_inputs(self, node: Node) -> None:
        node.made_of()
        # Results are dropped once nobody waits for them; large ones live in the cluster's memory.
        for upstream in set(node.upstream):
            upstream.users -= 1
            if upstream.users == 0:
                upstream.result = None
        node.upstream = []


_USED = {verdict: Decision(verdict=verdict, reason="it is used") for verdict in Verdict}


def _identity(node: Node, result: Result) -> str:
    if node.checkpoint or node.decision.verdict is Verdict.REUSED:
        return result.identity
    return derived_identity(node.made_of())


def _may_retry(node: Node, *, system: bool, retryable: bool) -> bool:
    """Count a failed attempt, and tell whether another one is due."""
    options = node.task.options
    if options.retry is not None and not system:
        node.errors += 1
        return retryable and node.errors < options.retry.attempts
    if retryable and (system or options.retry_exceptions):
        node.failures += 1
        return options.max_retries < 0 or node.failures <= options.max_retries
    return False


def _is_below(node: Node, creator: Node) -> bool:
    current: Node | None = node.creator
    while current is not None:
        if current is creator:
            return True
        current = current.creator
    return False
