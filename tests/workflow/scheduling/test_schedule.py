"""The scheduler against random workflows, orders of completion, crashes and resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from plans import (
    Call,
    Expected,
    Plan,
    PlannedTask,
    call,
    committed,
    expected,
    from_result,
    plans,
    to_graph,
    to_result,
)

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions, allocate_ids
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, Form, Result
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.budgets import Failed
from airflow_provider_rayworkflow.workflow.scheduling.failures import FailureAction
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode
from airflow_provider_rayworkflow.workflow.scheduling.schedule import Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim


def inputs(node: TaskNode) -> tuple[Result, ...]:
    """The results that it takes; it is ready, so they are there."""
    assert all(other.result is not None for other in node.upstream)
    return tuple(other.result for other in node.upstream)


def snapshot(graph: Graph, records: dict[str, TaskRecord], **options: object) -> Snapshot:
    claim = next_claim("w", after=0, manager_id="m", now=0, user_metadata={}, has_graph=True)
    return Snapshot(claim=claim, graph=graph, checkpoints=Checkpoints(records=records), **options)


@dataclass
class Run:
    """One run of a workflow, until its end or a crash; what is committed outlives it.

    A commit is under way for a while: other tasks may end meanwhile.
    """

    plan: Plan
    records: dict[str, TaskRecord]
    choose: Callable[[int], int]
    started: Counter[str] = field(default_factory=Counter)
    running: list[TaskNode] = field(default_factory=list)
    useless: set[TaskNode] = field(default_factory=set)
    waiting: list[TaskNode] = field(default_factory=list)  # for their next attempt
    to_commit: list[tuple[TaskRecord, Callable[[], None]]] = field(default_factory=list)
    under_way: list[tuple[TaskRecord, Callable[[], None]]] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.records = dict(self.records)
        graph = to_graph(self.plan)
        self.schedule = Schedule(snapshot(graph, self.records))
        self.all_ids = allocate_ids(graph, TaskIds())

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

    def start(self, node: TaskNode) -> None:
        self.started[node.task_id] += 1
        self.depths.append(depth(node))
        for result in inputs(node):
            assert result.inline is not None
        for upstream in node.upstream:
            is_kept = upstream.checkpoint or upstream.is_output
            assert not is_kept or upstream.task_id in self.records
        self.running.append(node)

    def end(self, node: TaskNode) -> None:
        self.running.remove(node)
        if node in self.useless:
            return
        called = call(self.plan, node.graph.blobs[node.task.arguments])
        did = called.task.attempt(node.attempts)
        if isinstance(did, tuple):
            self.continued(node, called.continuation(did, inputs(node)))
        elif did == "value":
            self.returned(node, called)
        else:
            self.failed(node, is_system=did == "S")

    def returned(self, node: TaskNode, called: Call) -> None:
        result = node.as_result(to_result(called.value(inputs(node))))
        record = TaskRecord(task_id=node.task_id, result=result)
        self.commit(node, record, lambda: self.schedule.finished(node, result))

    def continued(self, node: TaskNode, graph: Graph) -> None:
        task_ids = self.schedule.allocate_ids(graph, node)
        self.all_ids += task_ids
        record = TaskRecord(
            task_id=node.task_id,
            graph=graph.to_bytes(),
            task_ids=tuple(task_ids),
            catches=node.catches,
        )
        self.commit(node, record, lambda: self.schedule.continued(node, graph, task_ids))

    def failed(self, node: TaskNode, *, is_system: bool) -> None:
        action = self.schedule.attempt_failed(
            node, Failed(Cause.SYSTEM if is_system else Cause.APPLICATION)
        )
        if action is FailureAction.RETRY:
            self.waiting.append(node)
        elif action is FailureAction.CATCH:
            catcher = node.catcher
            result = Result(form=Form.CAUGHT_ERROR, inline=b"")
            record = TaskRecord(task_id=catcher.task_id, result=result)
            self.commit(catcher, record, lambda: self.caught(catcher, result))
        elif action is FailureAction.FAIL:
            self.has_failed = True

    def caught(self, catcher: TaskNode, result: Result) -> None:
        _, useless = self.schedule.caught(catcher, result)
        self.useless.update(useless)

    def wait_is_over(self, node: TaskNode) -> None:
        self.waiting.remove(node)
        self.schedule.retry(node)

    def commit(self, node: TaskNode, record: TaskRecord, then: Callable[[], None]) -> None:
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

    def crash(self) -> dict[str, TaskRecord]:
        """Stop anywhere. A write that was under way may have come through or not."""
        if self.under_way and self.choose(2):
            self.records.update({record.task_id: record for record, _ in self.under_way})
        return self.records


def run_to_the_end(plan: Plan, records: dict[str, TaskRecord], choose: Callable[[int], int]) -> Run:
    run = Run(plan, records, choose)
    for _ in range(2_000):
        if not run.step():
            return run
    raise AssertionError("the workflow does not end")


RANDOMS = st.randoms(use_true_random=False)


@given(plans(), RANDOMS)
def test_every_workflow_has_the_same_result_in_every_order_of_its_tasks_ends(plan, random):
    run = run_to_the_end(plan, {}, random.randrange)
    assert run.outcome() == expected(plan)


@given(plans(), RANDOMS, st.lists(st.integers(0, 25), max_size=5))
def test_no_committed_task_runs_again_after_any_number_of_crashes(plan, random, crashes):
    records: dict[str, TaskRecord] = {}
    for steps in crashes:
        run = Run(plan, records, random.randrange)
        before = committed(plan, records)
        for _ in range(steps):
            if not run.step():
                break
        assert not before & run.started.keys()
        records = run.crash()
    before = committed(plan, records)
    run = run_to_the_end(plan, records, random.randrange)
    assert not before & run.started.keys()
    assert run.outcome() == expected(plan)


@given(plans(failures=False), RANDOMS)
def test_a_workflow_that_ended_has_all_its_results_and_runs_nothing_again(plan, random):
    first = run_to_the_end(plan, {}, random.randrange)
    again = run_to_the_end(plan, first.records, random.randrange)
    kept = {task_id for task_id in again.started if task_id in committed(plan, first.records)}
    assert kept == set()
    assert again.outcome() == first.outcome()


@given(plans(), RANDOMS)
def test_two_tasks_never_have_the_same_id(plan, random):
    run = run_to_the_end(plan, {}, random.randrange)
    assert all(count == 1 for count in Counter(run.all_ids).values())


class OneWorkflow(RuleBasedStateMachine):
    """One workflow, whose tasks end in any order, and whose manager dies at any moment."""

    @initialize(plan=plans())
    def submit(self, plan: Plan) -> None:
        self.plan = plan
        self.resume({})

    def resume(self, records: dict[str, TaskRecord]) -> None:
        self.before = committed(self.plan, records)
        self.run = Run(self.plan, records, lambda number: 0)

    @rule(which=st.integers(0, 9))
    def go_on(self, which: int) -> None:
        self.run.choose = lambda number: which % number
        self.run.step()

    @rule(write_came_through=st.booleans())
    def crash_and_resume(self, write_came_through: bool) -> None:
        self.run.choose = lambda number: int(write_came_through)
        self.resume(self.run.crash())

    @invariant()
    def no_committed_task_starts(self) -> None:
        assert not self.before & self.run.started.keys()

    @invariant()
    def no_two_tasks_have_the_same_id(self) -> None:
        assert all(count == 1 for count in Counter(self.run.all_ids).values())

    def teardown(self) -> None:
        end = run_to_the_end(self.plan, self.run.crash(), lambda number: 0)
        assert end.outcome() == expected(self.plan)


TestOneWorkflow = OneWorkflow.TestCase


# ---- what random workflows hardly ever meet


def task(name: str, *upstream: int, ends_with: str | Plan = "value", **options) -> PlannedTask:
    return PlannedTask(
        name=name,
        named_by_author=False,
        upstream=upstream,
        options=TaskOptions(**options),
        failures="",
        ends_with=ends_with,
    )


def do(run: Run, *steps: str) -> Run:
    """Let tasks end in this order; ``"write"`` ends the commit that is under way."""
    for step in steps:
        while (node := run.schedule.take_ready()) is not None:
            run.start(node)
        if step == "write":
            if not run.under_way:
                run.under_way, run.to_commit = run.to_commit, []
            run.written()
        else:
            run.end(next(node for node in run.running if node.task_id == step))
    return run


def test_of_two_exceptions_at_once_the_first_is_caught_and_the_other_changes_nothing():
    """c takes a and b. Counted twice, the exception of a would start c before b has ended."""
    failing = (task("x", ends_with="error"), task("y", ends_with="error"), task("z", 0, 1))
    plan = (task("a", ends_with=failing, catch_exceptions=True), task("b"), task("c", 0, 1))
    run = do(Run(plan, {}, lambda count: 0), "a", "write", "x", "y")
    assert [record.task_id for record, _ in run.to_commit] == ["a"]
    do(run, "write")
    assert run.schedule.take_ready() is None
    assert run_on(run).outcome() == expected(plan)


def test_a_failed_continuation_starts_nothing_any_more():
    """y is being committed, and w waits for its next attempt, when the exception of x is caught."""
    failing = (
        task("x", ends_with="error"),
        task("y"),
        replace(task("w", retry_exceptions=True), failures="A"),
        task("z", 1),
        task("end", 0, 2, 3),
    )
    plan = (task("a", ends_with=failing, catch_exceptions=True), task("b", 0))
    run = do(Run(plan, {}, lambda count: 0), "a", "write", "w", "x", "y", "write")
    assert [node.task_id for node in run.waiting] == ["w"]
    assert run_on(run).outcome() == expected(plan)
    assert run.started == {"a": 1, "x": 1, "y": 1, "w": 1, "b": 1}


def test_a_system_failure_in_a_failed_continuation_does_not_end_the_workflow():
    failing = (
        task("x", ends_with="error"),
        replace(task("y", max_retries=0), failures="S"),
        task("z", 0, 1),
    )
    plan = (task("a", ends_with=failing, catch_exceptions=True),)
    run = do(Run(plan, {}, lambda count: 0), "a", "write", "x", "y", "write")
    assert run_on(run).outcome() == Expected(Form.CAUGHT_ERROR)


def test_a_new_task_does_not_get_the_id_of_what_a_task_without_checkpoint_created():
    """f is committed, but not a, which created it. On the resume, b creates another f first."""
    two = (task("f", checkpoint=True), task("g", 0))
    plan = (task("a", ends_with=two, checkpoint=False), task("b", ends_with=two), task("c", 0, 1))
    first = do(Run(plan, {}, lambda count: 0), "a", "f", "write")
    assert list(first.records) == ["f"]
    second = do(Run(plan, first.records, lambda count: 0), "b", "write")
    assert second.records["b"].task_ids == ("f_1", "g")
    last = run_to_the_end(plan, second.records, lambda count: 0)
    assert last.outcome() == expected(plan)


def test_an_endless_tail_of_continuations_takes_no_memory():
    plan: Plan = (task("f"),)
    for _ in range(300):
        plan = (task("f", ends_with=plan),)
    run = run_to_the_end(plan, {}, lambda count: 0)
    assert run.outcome() == expected(plan)
    assert depth(run.schedule.output) == 0
    assert max(run.depths) <= 1


def test_a_task_that_is_not_needed_does_not_run():
    plan = (task("unused"), task("a"), task("b", 1))
    run = run_to_the_end(plan, {}, lambda count: 0)
    assert run.started == {"a": 1, "b": 1}


def test_a_task_without_checkpoint_runs_again_only_for_those_that_need_it():
    plan = (task("a", checkpoint=False), task("b", 0), task("c", 0, 1))
    first = do(Run(plan, {}, lambda count: 0), "a", "b", "write")
    again = run_to_the_end(plan, first.records, lambda count: 0)
    assert again.started == {"a": 1, "c": 1}
    done = {**first.records, **{k: v for k, v in again.records.items() if k == "c"}}
    assert run_to_the_end(plan, done, lambda count: 0).started == {}


def run_on(run: Run) -> Run:
    while run.step():
        pass
    return run


def depth(node: TaskNode) -> int:
    return 0 if node.creator is None else 1 + depth(node.creator)


@given(plans(depth=0, failures=False))
def test_checkpoints_are_made_of_the_same_whether_there_were_others_before(plan: Plan):
    """The first run makes fingerprints when a task ends, a later one when it is planned."""
    of_another = {"another": TaskRecord(task_id="another", result=to_result(0))}
    assert fingerprints(plan, {}) == fingerprints(plan, of_another)


def fingerprints(plan: Plan, records: dict[str, TaskRecord]) -> dict[str, Fingerprints]:
    """Of the tasks that run, by their ids."""
    schedule, found = Schedule(snapshot(to_graph(plan), records)), {}
    while (node := schedule.take_ready()) is not None:
        result = node.as_result(to_result(len(found)))
        schedule.returned(node, result)
        found[node.task_id] = node.made_of()
        schedule.finished(node, result)
    assert schedule.is_finished
    return found


def test_tasks_of_the_run_before_are_not_looked_for_in_a_list():
    class OneByOne(list):
        def __contains__(self, item: object) -> bool:
            raise AssertionError("it would be looked through for each task")

    tasks = [Task(name="f", function=0), Task(name="f", function=0, upstream=(0,))]
    schedule = Schedule(snapshot(Graph(tasks=tasks, blobs=[b""]), {}, known=OneByOne(["f"])))
    assert schedule.found == {"unfinished": 1, "new": 1}
