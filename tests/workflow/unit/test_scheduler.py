"""The scheduler against random workflows, orders of completion, crashes and resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from airflow_provider_rayworkflow.workflow.graph import Graph
from airflow_provider_rayworkflow.workflow.model import Form, Result
from airflow_provider_rayworkflow.workflow.scheduler import Node, Schedule, Verdict
from airflow_provider_rayworkflow.workflow.storage.workflows import TaskRecord
from hypothesis import given
from hypothesis import strategies as st
from plans import Call, Expected, Plan, PlannedTask, call, expected, from_result, plans, to_graph, to_result


@dataclass
class Run:
    """One run of a workflow, until its end or a crash; what is committed outlives it.

    A commit is under way for a while: other tasks may end meanwhile.
    """

    plan: Plan
    records: dict[str, TaskRecord]
    choose: Callable[[int], int]
    started: Counter[str] = field(default_factory=Counter)
    running: list[Node] = field(default_factory=list)
    useless: set[Node] = field(default_factory=set)
    waiting: list[Node] = field(default_factory=list)  # for their next attempt
    to_commit: list[tuple[TaskRecord, Callable[[], None]]] = field(default_factory=list)
    under_way: list[tuple[TaskRecord, Callable[[], None]]] = field(default_factory=list)
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.committed_before = set(self.records)
        self.schedule = Schedule(to_graph(self.plan), dict(self.records))

    def step(self) -> bool:
        """Do one thing of those that may happen next; False if nothing can."""
        while not self.has_failed and (node := self.schedule.take_ready()) is not None:
            self.start(node)
        if not self.under_way:
            self.under_way, self.to_commit = self.to_commit, []
        events: list[Callable[[], None]] = [lambda n=node: self.end(n) for node in self.running]
        events += [lambda n=node: self.wait_is_over(n) for node in self.waiting]
        if self.under_way:
            events.append(self.written)
        if not events or (self.schedule.is_finished and not self.under_way):
            return False
        events[self.choose(len(events))]()
        return True

    def start(self, node: Node) -> None:
        self.started[node.task_id] += 1
        for result in node.inputs():
            assert result.inline is not None
        for upstream in node.upstream:
            is_kept = upstream.checkpoint or upstream.is_output
            assert not is_kept or upstream.task_id in self.records
        self.running.append(node)

    def end(self, node: Node) -> None:
        self.running.remove(node)
        if node in self.useless:
            return
        called = call(self.plan, node.graph.blobs[node.task.arguments])
        did = called.task.attempt(node.attempts)
        if isinstance(did, tuple):
            self.continued(node, called.continuation(did, node.inputs()))
        elif did == "value":
            self.returned(node, called)
        else:
            self.failed(node, is_system=did == "S")

    def returned(self, node: Node, called: Call) -> None:
        result = node.as_result(to_result(called.value(node.inputs())))
        record = TaskRecord(task_id=node.task_id, result=result)
        self.commit(node, record, lambda: self.schedule.finished(node, result))

    def continued(self, node: Node, graph: Graph) -> None:
        task_ids = self.schedule.allocate_ids(graph)
        record = TaskRecord(
            task_id=node.task_id,
            graph=graph.to_bytes(),
            task_ids=tuple(task_ids),
            catches=node.catches,
        )
        self.commit(node, record, lambda: self.schedule.continued(node, graph, task_ids))

    def failed(self, node: Node, *, is_system: bool) -> None:
        verdict = self.schedule.attempt_failed(node, system=is_system)
        if verdict is Verdict.RETRY:
            self.waiting.append(node)
        elif verdict is Verdict.CATCH:
            catcher = self.schedule.catcher(node)
            result = Result(form=Form.CAUGHT_ERROR, inline=b"")
            record = TaskRecord(task_id=catcher.task_id, result=result)
            self.commit(catcher, record, lambda: self.caught(catcher, result))
        elif verdict is Verdict.FAIL:
            self.has_failed = True

    def caught(self, catcher: Node, result: Result) -> None:
        _, useless = self.schedule.caught(catcher, result)
        self.useless.update(useless)

    def wait_is_over(self, node: Node) -> None:
        self.waiting.remove(node)
        self.schedule.retry(node)

    def commit(self, node: Node, record: TaskRecord, then: Callable[[], None]) -> None:
        if node.checkpoint or node.is_output:
            self.to_commit.append((record, then))
        else:
            then()

    def written(self) -> None:
        batch, self.under_way = self.under_way, []
        for record, _ in batch:
            self.records.pop(record.task_id, None)
            self.records[record.task_id] = record
        for _, then in batch:
            then()

    def outcome(self) -> Expected | None:
        return None if self.has_failed else from_result(self.schedule.output.result)


def recoverable(plan: Plan, records: dict[str, TaskRecord]) -> set[str]:
    """The committed tasks that a resume finds: their creators' continuations are committed."""
    found: set[str] = set()
    pending = list(Schedule(to_graph(plan)).allocate_ids(to_graph(plan)))
    return found


def run_to_the_end(plan: Plan, records: dict[str, TaskRecord], choose: Callable[[int], int]) -> Run:
    run = Run(plan, records, choose)
    for _ in range(2_000):
        if not run.step():
            return run
    raise AssertionError("the workflow does not end")


@given(plans(), st.randoms(use_true_random=False))
def test_every_workflow_ends_with_the_same_result_in_whatever_order_its_tasks_end(plan, random):
    run = run_to_the_end(plan, {}, random.randrange)
    assert run.outcome() == expected(plan)
