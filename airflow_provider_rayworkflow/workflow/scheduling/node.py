"""One task of a running workflow. Pure: no Ray, no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.fingerprints import combine
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, Form, Result
from airflow_provider_rayworkflow.workflow.model.stored_map import NOT_RUN
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Earlier, TaskRun
from airflow_provider_rayworkflow.workflow.scheduling.budgets import (
    NOTHING_SPENT,
    Failed,
    Spent,
    budget_of,
    charge,
    may_run_twice,
    wait_s,
)
from airflow_provider_rayworkflow.workflow.scheduling.decision import Decision, TaskAction
from airflow_provider_rayworkflow.workflow.scheduling.task_fingerprints import (
    TaskInput,
    derived_identity,
    literals_of,
    made_of,
)


class NodeState(Enum):
    """What a task waits for, or what it does."""

    WAITING = auto()  # for results of other tasks
    CHECKING = auto()  # whether they are those that its checkpoint is made of
    READY = auto()
    RUNNING = auto()
    REPLACED = auto()  # by a continuation, whose output will be its result
    DONE = auto()
    FAILED = auto()  # for good, and nothing catches that
    NOT_RUN = auto()  # and will not in this run: a failure stands in its way


@dataclass(frozen=True, slots=True)
class Tried:
    """How a task has fared that has no result yet; the fields are those of :class:`TaskNode`."""

    attempts: int
    spent: Spent
    is_alone: bool


@dataclass(slots=True, eq=False)
class TaskNode:
    """One task of a running workflow.

    :ivar graph: the graph that contains it, with the blobs that it refers to.
    :ivar creator: the node whose continuation it belongs to.
    :ivar is_tail: its result is also the result of its creator.
    :ivar checkpoint: as its options say, or else as its creator.
    :ivar attempts: how often it was started in this run.
    :ivar spent: what its failed attempts in this run have used up of its budgets.
    :ivar is_caught: an exception is its result, or will be once that is committed.
    :ivar users: dependents that have not ended; the result is dropped with the last one.
    :ivar is_alone: it shares no Ray task any more.
    :ivar linear_run: the one that it was started in; see :func:`.linear_runs.follower_of`.
    :ivar covered: how many of its inputs the linear run ``covered_by`` gives.
    :ivar decision: what becomes of its checkpoint of an earlier run.
    :ivar fingerprints: what its result is made of, known once it has all that it takes.
    :ivar identity: of its result; it outlives that in memory.
    :ivar saved_since: what it saved under earlier epochs does not count, because of a restart.
    """

    task_id: str
    task: Task
    graph: Graph
    creator: TaskNode | None
    is_tail: bool
    checkpoint: bool
    decision: Decision
    state: NodeState = NodeState.WAITING
    upstream: list[TaskNode] = field(default_factory=list)
    dependents: list[TaskNode] = field(default_factory=list)
    waiting_for: int = 0
    users: int = 0
    result: Result | None = None
    attempts: int = 0
    spent: Spent = NOTHING_SPENT
    is_caught: bool = False
    is_alone: bool = False
    linear_run: object = None
    covered: int = 0
    covered_by: object = None
    fingerprints: Fingerprints | None = None
    identity: str = ""
    saved_since: int = 0

    @property
    def catches(self) -> bool:
        return self.task.options.catch_exceptions

    @property
    def has_ended(self) -> bool:
        """True if nothing more happens to it in this run."""
        return self.state is NodeState.DONE or self.has_no_value

    @property
    def has_no_value(self) -> bool:
        """True if it has ended without a value: it failed, or could not run."""
        return self.state in (NodeState.FAILED, NodeState.NOT_RUN)

    @property
    def took_failures(self) -> bool:
        """True if a task that it takes has ended without a value."""
        takes_them = self.task.options.takes_failures
        return takes_them and any(other.has_no_value for other in self.upstream)

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
            if decided is None or self.took_failures:
                inputs = [other.as_input for other in self.upstream]
                self.fingerprints = made_of(self.task, self.task_id, literals_of(self.task), inputs)
            else:
                taken = combine(*[other.identity for other in self.upstream])
                self.fingerprints = decided._replace(taken=taken)
        return self.fingerprints

    @property
    def as_input(self) -> TaskInput:
        """The task as its dependents see it. It has its result."""
        now = self.made_of()  # of a failed task, a mark of that
        return TaskInput(now.recipe, identity=self.identity, code=now.code, keeps=self.checkpoint)

    def take_over(self, tried: Tried) -> None:
        """Go on counting where the task's node in a former schedule stopped."""
        self.attempts, self.spent, self.is_alone = tried.attempts, tried.spent, tried.is_alone

    def wait_s(self, cause: Cause, random: float) -> float:
        """How long to wait before the next attempt, in seconds.

        :param cause: of the failure of the last one.
        """
        return wait_s(self.spent, cause, self.task.options, random)

    def paid(self, cause: Cause) -> str:
        """Which budget has paid for a failed attempt and what is left of it, for people."""
        budget = budget_of(cause, self.task.options)
        return budget.text(self.spent.used_of(budget))

    @property
    def can_share(self) -> bool:
        """True if it may run in one Ray task with others.

        One that asks for anything of its own may not, nor one that must not run twice because
        another one took its worker along.
        """
        options = self.task.options
        asks = self.is_alone or options.isolate or options.is_event
        # Items of one batch ask for the same.
        is_batched = options.map_rules is not None and options.map_rules.batch_size > 1
        asks = asks or (bool(self.task.shown_options) and not is_batched)
        return not asks and may_run_twice(options)

    @property
    def catcher(self) -> TaskNode | None:
        """The nearest task that catches an exception of this one: itself or a creator.

        None within an item of a map that may fail: its failure is counted.
        """
        node: TaskNode | None = self
        while node is not None and not node.catches:
            node = None if node.task.options.max_failed else node.creator
        return node

    @property
    def counted_item(self) -> TaskNode | None:
        """The item of a map that fails with this task, and may: itself or a creator."""
        node: TaskNode | None = self
        while node is not None and not node.task.options.max_failed:
            node = node.creator
        return node

    @property
    def is_in_caught(self) -> bool:
        """True if it belongs to a continuation whose exception was caught, or caught one."""
        node: TaskNode | None = self
        while node is not None and not node.is_caught:
            node = node.creator
        return node is not None

    def is_below(self, creator: TaskNode) -> bool:
        """True if it belongs to the continuation of that task, or to one that this leads to."""
        node = self.creator
        while node is not None and node is not creator:
            node = node.creator
        return node is not None

    def identity_of(self, result: Result) -> str:
        """What stands for a result of the task in the fingerprints of its dependents."""
        if self.checkpoint or self.decision.action is TaskAction.REUSED:
            return result.identity
        return derived_identity(self.made_of())

    def count_failure(self, failed: Failed) -> bool:
        """Count a failed attempt; True if another one is due."""
        options = self.task.options
        spent, is_due = charge(self.spent, failed, options)
        self.spent = spent.escalated(failed, options) if is_due else spent
        self.is_alone = self.is_alone or bool(self.spent.asks)
        return is_due

    def release_inputs(self) -> None:
        """Drop the results that it takes: it has ended, or a continuation replaces it."""
        self.made_of()
        # A result is dropped with its last user; large ones live in the cluster's memory.
        for upstream in set(self.upstream):
            upstream.users -= 1
            if upstream.users == 0:
                upstream.result = None
        self.upstream = []

    def task_run(
        self, claim: Claim, attempt: int, *, code: tuple[tuple[str, str], ...] = ()
    ) -> TaskRun:
        """One attempt of the task, as a runner takes it.

        :param claim: of the workflow.
        :param attempt: counted from 1.
        :param code: of the run, see :class:`TaskRun`.
        """
        blobs, task = self.graph.blobs, self.task
        return TaskRun(
            workflow_id=claim.workflow_id,
            epoch=claim.epoch,
            task_id=self.task_id,
            attempt=attempt,
            function=blobs[task.function],
            arguments=self.graph.arguments_of(task),
            ray_options=blobs[task.ray_options] if task.ray_options >= 0 else b"",
            inputs=self._inputs,
            checkpoint=self.checkpoint or self.is_output,
            wants_json=self.is_output,
            timeout_s=task.options.timeout_s,
            is_event=task.options.is_event,
            name=task.name,
            can_share=self.can_share,
            catches=self.catches,
            traceparent=claim.traceparent,
            code=code,
            saved_since=max(claim.base_epoch, self.saved_since),
            stop_grace_s=task.options.stop_grace_s,
            asks=tuple(self.spent.asks.items()),
            heartbeat_timeout_s=task.options.heartbeat_timeout_s,
            tells_begin=task.options.has_rate,
            gathers=task.options.gathers,
            batch_size=task.options.map_rules.batch_size if task.options.map_rules else 1,
        )

    @property
    def _inputs(self) -> tuple[Result | Earlier, ...]:
        if not self.task.options.gathers:
            return tuple(other.result or Earlier(other.task_id) for other in self.upstream)
        # What is in memory of them is not asked for.
        return tuple(
            NOT_RUN
            if other.state is NodeState.NOT_RUN
            else other.result._replace(ref=None)
            if other.result
            else Earlier(other.task_id)
            for other in self.upstream
        )
