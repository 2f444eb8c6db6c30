"""Which checkpoints count after restarts, changes and crashes: all readers get one answer."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random

import effects
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_runs import ID, execute
from plans import Plan, from_result, plans, to_graph
from sample_records import status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.plugin.tasks import ShownTasks, TaskView
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.offline.describe import describe_graph
from airflow_provider_rayworkflow.workflow.offline.finished import FinishedTasks
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.offline.lifecycle import forget_from
from airflow_provider_rayworkflow.workflow.offline.plan import Plan as RunPlan
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.claims import claim_put, next_claim
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows


class Closed:
    """It pickles, and has no fingerprint."""

    def __reduce__(self):
        if sys._getframe(1).f_globals["__name__"].endswith(".model.reduced"):
            raise TypeError("not for you")
        return Closed, ()


class History:
    """A workflow of a plan that is started, changed, restarted, killed, and looked at in between."""

    def __init__(self, plan: Plan, data: st.DataObject) -> None:
        self.plan = plan
        self.data = data
        self.bytes = MemoryStore()
        self.store = WorkflowStore(self.bytes)
        self.claim: Claim | None = None
        self.changed: Collection[int] = ()
        self.known: Collection[str] | None = None

    def claim_next(self, graph: Graph | None, from_task: str = "") -> None:
        """What a start or a restart on the storage alone writes."""
        claim = next_claim(
            ID,
            after=self.claim.epoch if self.claim else 0,
            manager_id="m",
            now=0,
            user_metadata={},
            has_graph=graph is not None,
            continues=self.claim,
            from_task=from_task,
        )
        put = claim_put(claim, graph)
        assert self.bytes.put_if_absent(put.key, put.data)
        self.known = None
        if graph is not None and self.claim is not None:
            self.known = self.snapshot(WorkflowStatus.RESUMABLE).task_ids
        self.claim = claim
        self.write_status(WorkflowStatus.RESUMABLE)

    def write_status(self, status: WorkflowStatus) -> None:
        self.store.write_status(self.record(status))

    def record(self, status: WorkflowStatus) -> StatusRecord:
        assert self.claim is not None
        return status_record(
            status,
            ID,
            epoch=self.claim.epoch,
            number=int(status is WorkflowStatus.SUCCESSFUL),
            created_at=1.0,
            started_at=2.0,
        )

    def snapshot(self, status: WorkflowStatus) -> Snapshot:
        return read_snapshot(self.store, self.record(status))

    def run(self, at: int) -> tuple[Collection[str], bool]:
        """Run to the end, or to a crash; returns what has started, and if it was successful."""
        assert self.claim is not None
        seed = self.data.draw(st.integers(0, 2**32))
        outcome, runner = execute(
            self.plan,
            self.bytes,
            Random(seed),
            at=at,
            changed=self.changed,
            claim=self.claim,
            known=self.known,
        )
        is_successful = outcome is not None and outcome.result is not None
        if is_successful:
            self.write_status(WorkflowStatus.SUCCESSFUL)
            assert outcome is not None
            stored = self.snapshot(WorkflowStatus.SUCCESSFUL).output
            assert stored is not None
            assert from_result(stored) == from_result(outcome.result)
        return runner.started.keys(), is_successful


def answers(store: WorkflowStore, record: StatusRecord) -> dict[str, set[str]]:
    """The tasks that have a checkpoint that counts, as each reader says it."""
    found = StoredWorkflow(record=record, status=record.status)
    planned = make_plan(store, ID, found, None)
    graph = describe_graph(store, record)["tasks"]
    return {
        "plan": {task.task_id for task in planned.tasks if task.action == "reuse"},
        "graph": {task["task_id"] for task in graph if task["checkpoint"]},
        "page": page(store, found),
        "fork": forked(store),
    }


def page(store: WorkflowStore, found: StoredWorkflow) -> set[str]:
    views = tasks_of_page(store, found)
    return {view.task_id for view in views if view.state not in ("idle", "not_run", "failed")}


def tasks_of_page(store: WorkflowStore, found: StoredWorkflow) -> list[TaskView]:
    return ShownTasks(store, found).views()


def forked(store: WorkflowStore) -> set[str]:
    name = f"fork-{time.monotonic_ns()}"
    fork(store, ID, name, from_task="", now=0.0)
    record = store.read_status(name)
    assert record is not None
    snapshot = read_snapshot(store, record)
    return {placed.task_id for placed in snapshot.tasks() if placed.record}


def planned_runs(plan: RunPlan, action: str) -> set[str]:
    return {task.task_id for task in plan.tasks if task.action == action}


def look(history: History) -> RunPlan:
    """Ask all readers; returns the plan of a resume."""
    record = history.record(WorkflowStatus.RESUMABLE)
    told = answers(history.store, record)
    snapshot = history.snapshot(WorkflowStatus.RESUMABLE)
    counting = {placed.task_id for placed in snapshot.tasks() if placed.record}
    assert told == dict.fromkeys(told, counting)
    finished = FinishedTasks(history.store, ID)
    for task_id in {*snapshot.checkpoints.records, *snapshot.task_ids}:
        fires = finished.has(task_id, epoch=record.epoch, status=record.status)
        assert fires == (snapshot.result_of(task_id) is not None)
        assert not fires or task_id in counting
    return make_plan(history.store, ID, StoredWorkflow(record=record, status=record.status), None)


@pytest.mark.invariant(10)
@settings(max_examples=20)
@given(plans(failures=False), st.data())
def test_everyone_says_of_every_task_what_a_resume_does_with_it(plan: Plan, data: st.DataObject):
    history = History(plan, data)
    history.claim_next(to_graph(plan))
    history.run(data.draw(st.sampled_from([-1, -1, 1, 2, 3])))
    for _ in range(2):
        step = data.draw(st.sampled_from(["restart", "restart", "change", "resume"]))
        if step == "change":
            history.changed = data.draw(st.sets(st.integers(0, len(plan) - 1)))
            history.claim_next(to_graph(plan, changed=history.changed))
        elif step == "restart":
            snapshot = history.snapshot(WorkflowStatus.RESUMABLE)
            names = [placed.task_id for placed in snapshot.tasks()]
            nested = [placed.task_id for placed in snapshot.tasks() if placed.creator]
            start = data.draw(st.sampled_from(nested or names))
            given_up = depending_on(snapshot, start)
            history.claim_next(None, from_task=start)
            snapshot = history.snapshot(WorkflowStatus.RESUMABLE)
            assert not snapshot.counts(start)
            assert not any(map(snapshot.has_finished, given_up))
        planned = look(history)
        history.claim_next(None)  # a resume's
        started, is_successful = history.run(data.draw(st.sampled_from([-1, -1, 0, 1, 2])))
        assert not planned_runs(planned, "reuse") & started
        assert not planned_runs(planned, "skip") & started
        if is_successful:
            assert planned_runs(planned, "run") <= started
        look(history)


def depending_on(snapshot: Snapshot, start: str) -> set[str]:
    """The task and all whose results are made of its own, by a walk of its own over the graphs."""
    hit = {start}
    edges = set[tuple[str, str]]()
    for placed in snapshot.tasks():
        edges |= {(upstream, placed.task_id) for upstream in placed.takes}
        if placed.record is not None and placed.record.graph is not None:
            edges.add((placed.record.task_ids[-1], placed.task_id))
    while more := {after for before, after in edges if before in hit} - hit:
        hit |= more
    return hit


# ---- the kinds, one by one


def task(name: str, function: Callable[..., object] | None = None, **options: object):
    """A task that leaves its name, and gives the sum of what it takes, or what the function makes of that."""

    def body(*values):
        effects.note(name)
        return function(*values) if function else sum(values)

    return ray.remote(body).options(**workflow.options(task_id=name, **options))


def with_continuation():
    """outer → after → out, beside → out; outer's continuation is inner_a → inner_tail."""

    def inner(value):
        return workflow.continuation(task("inner_tail").bind(task("inner_a").bind(value), 1))

    after = task("after").bind(task("outer", inner).bind(1), 10)
    return task("out").bind(after, task("beside").bind(100))


def nested(depth: int):
    """first → loop → last, where loop returns itself so often, and the last time step → base."""

    def loop(level: int):
        if level == 0:
            return workflow.continuation(task("base").bind(task("step").bind(5), 1))
        return workflow.continuation(task(f"loop_{level}", loop).bind(level - 1))

    return task("last").bind(task("loop", loop).bind(depth), task("first").bind(1))


def forget(workflows: InProcessWorkflows, task_id: str) -> None:
    store = WorkflowStore(workflows.store)
    found = StatusReader(store).read("w")
    assert found is not None
    forget_from(store, found, task_id, manager_id="visitor", now=time.time())


CASES = {
    "of a continuation": (
        with_continuation,
        "inner_a",
        {"inner_a", "inner_tail", "after", "out"},
        {"outer"},
        {"beside"},
    ),
    "the last one of a continuation": (
        with_continuation,
        "inner_tail",
        {"inner_tail", "after", "out"},
        {"outer"},
        {"inner_a", "beside"},
    ),
    "that returned a continuation": (
        with_continuation,
        "outer",
        {"outer", "inner_a", "inner_tail", "after", "out"},
        set(),
        {"beside"},
    ),
    "behind a tail recursion": (
        lambda: nested(3),
        "step",
        {"step", "base", "last"},
        {"loop", "loop_3", "loop_2", "loop_1"},
        {"first"},
    ),
    "amid a tail recursion": (
        lambda: nested(3),
        "loop_2",
        {"loop_2", "loop_1", "step", "base", "last"},
        {"loop", "loop_3"},
        {"first"},
    ),
}


@pytest.mark.invariant(10)
@pytest.mark.parametrize("case", CASES)
def test_a_task_that_was_given_up_counts_nowhere_and_what_depends_on_it_neither(workflows, case):
    dag, start, given_up, continued, kept = CASES[case]
    result = workflows.run(dag(), workflow_id="w")
    forget(workflows, start)
    store = WorkflowStore(workflows.store)
    record = store.read_status("w")
    found = StoredWorkflow(record=record, status=record.status)
    told = answers(store, record)
    assert told == dict.fromkeys(told, kept | continued)
    pages = tasks_of_page(store, found)
    assert {view.state for view in pages if view.task_id in given_up} == {"idle"}
    finished = FinishedTasks(store, "w")
    for task_id in given_up | continued | kept:
        is_there = task_id in kept
        assert finished.has(task_id, epoch=record.epoch, status=record.status) == is_there
        if not is_there:
            with pytest.raises(ValueError, match="Cannot load output from task id"):
                workflows.get_output("w", task_id=task_id)
    for task_id in kept:
        assert workflows.get_output("w", task_id=task_id) is not None
    effects.calls.clear()
    assert workflows.resume("w") == result
    # The ids of what a continuation makes anew are others; what it runs has the same names.
    assert set(effects.calls) == given_up
    assert workflows.get_output("w") == result


def test_a_result_that_a_changed_graph_makes_anew_does_not_count_until_it_is_made(workflows):
    def dag(start: int):
        loaded = task("load").bind(start)
        return task("end").bind(task("clean").bind(loaded), task("beside").bind(3))

    workflows.run(dag(1), workflow_id="w")
    effects.broken.add("load")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(dag(2), workflow_id="w")
    store = WorkflowStore(workflows.store)
    record = store.read_status("w")
    told = answers(store, record)
    assert all(counting == {"beside"} for counting in told.values())
    for task_id in ("load", "clean"):
        with pytest.raises(WorkflowExecutionError):
            workflows.get_output("w", task_id=task_id)
    assert workflows.get_output("w", task_id="beside") == 3
    effects.broken.clear()
    assert workflows.resume("w") == 5
    assert workflows.get_output("w", task_id="clean") == 2


def test_a_task_that_is_not_in_the_graph_any_more_has_no_output(workflows):
    workflows.run(task("end").bind(task("old").bind(1)), workflow_id="w")
    workflows.run(task("end").bind(task("new").bind(2)), workflow_id="w")
    assert workflows.get_output("w", task_id="new") == 2
    with pytest.raises(ValueError, match="Cannot load output from task id 'old'"):
        workflows.get_output("w", task_id="old")


def test_a_resume_of_the_same_graph_does_not_repeat_what_cannot_be_compared(workflows):
    """Its arguments are those of the graph that is stored; only another graph can have others."""

    dag = task("end", lambda value: 7).bind(task("load", lambda odd: 1).bind(Closed()))
    effects.broken.add("end")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(dag, workflow_id="w", on_change="rerun_changed")
    effects.broken.clear()
    effects.calls.clear()
    assert workflows.resume("w") == 7
    assert effects.calls == ["end"]


# ---- one place


@pytest.mark.invariant(10)
def test_one_module_reads_checkpoints_and_gives_ids_to_a_stored_graph():
    package = Path(workflow.__file__).parents[1]
    users = {
        name: {
            path.relative_to(package).as_posix()
            for path in package.rglob("*.py")
            if re.search(rf"(?<!def )\b{name}\(", path.read_text())
        }
        for name in ("read_checkpoints", "allocate_ids", "continuation_of", "forgotten")
    }
    assert users == {
        # Spans are of what one epoch has run, whether or not it counts.
        "read_checkpoints": {"workflow/storage/snapshot.py", "observability/tracing.py"},
        # The scheduler: to the tasks of a continuation that is new.
        "allocate_ids": {
            "workflow/scheduling/snapshot.py",
            "workflow/scheduling/schedule.py",
            "workflow/execution/attempt_ends.py",
        },
        # The scheduler: of a task that it reuses.
        "continuation_of": {
            "workflow/scheduling/graph_review.py",
            "workflow/scheduling/reuse.py",
            "workflow/scheduling/schedule.py",
        },
        "forgotten": {"workflow/scheduling/reuse.py"},
    }


# ---- odd documents


def one_task(records: dict[str, tuple[str, ...]]) -> Snapshot:
    """Of a graph of one task ``a``; each record is of a continuation of one task, with these ids."""
    graph = Graph(tasks=[Task(name="a", function=0)], blobs=[b""])
    claim = next_claim("w", after=0, manager_id="m", now=0, user_metadata={}, has_graph=True)
    stored = {
        task_id: TaskRecord(task_id=task_id, graph=graph.to_bytes(), task_ids=ids)
        for task_id, ids in records.items()
    }
    return Snapshot(claim=claim, graph=graph, checkpoints=Checkpoints(records=stored))


@pytest.mark.parametrize(
    ("records", "named"),
    [({"a": ("b", "c")}, "2 ids"), ({"a": ("b",), "b": ("c",), "c": ("b",)}, "b")],
    ids=["too many ids", "circle"],
)
def test_continuations_with_ids_of_others_are_refused(records, named):
    with pytest.raises(CorruptedDataError, match=named):
        one_task(records).result_of("a")


def test_a_continuation_with_an_id_of_the_graph_does_not_count():
    snapshot = one_task({"a": ("b",), "b": ("a",)})
    assert [level.creator for level in snapshot.levels()] == ["", "a"]
    assert snapshot.result_of("a") is None
