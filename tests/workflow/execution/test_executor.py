"""The executor against random workflows, orders of completion, and crashes at its commits."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_runs import ForgetfulRunner, PlanRunner, execute, failure, records, value_of
from plans import Plan, PlannedTask, committed, expected, plans, to_graph

from airflow_provider_rayworkflow.workflow.model.graph import (
    RetryOptions,
    TaskOptions,
    allocate_ids,
)
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Errand,
    InputsLost,
    Lost,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

SEEDS = st.integers(0, 2**32)


@given(plans(), SEEDS)
def test_a_run_ends_as_its_plan_says(plan: Plan, seed: int):
    outcome, _ = execute(plan, MemoryStore(), Random(seed), epoch=1)
    assert value_of(outcome) == expected(plan)
    assert (outcome.failure is None) == (outcome.result is not None)


@given(plans(), SEEDS)
def test_results_that_are_lost_are_made_again_and_used_up_retries_stay_used_up(
    plan: Plan, seed: int
):
    runner = ForgetfulRunner
    outcome, _ = execute(plan, MemoryStore(), Random(seed), epoch=1, runner_type=runner)
    assert value_of(outcome) == expected(plan)


@pytest.mark.invariant(1)
@given(plans(), SEEDS, st.lists(st.integers(0, 6), max_size=4))
def test_a_run_after_any_crashes_ends_the_same_and_repeats_no_committed_task(
    plan: Plan, seed: int, crashes: list[int]
):
    store = MemoryStore()
    for epoch, at in enumerate([*crashes, -1], start=1):
        before = committed(plan, records(store))
        outcome, runner = execute(plan, store, Random(seed + epoch), epoch=epoch, at=at)
        assert not before & runner.started.keys()
        assert outcome is None or value_of(outcome) == expected(plan)
    assert outcome is not None


@given(plans(failures=False), SEEDS, st.data())
def test_a_run_with_changes_and_crashes_ends_as_a_run_from_scratch(
    plan: Plan, seed: int, data: st.DataObject
):
    store = MemoryStore()
    indexes = st.sets(st.integers(0, len(plan) - 1))
    for epoch in range(1, 5):
        changed = data.draw(indexes)
        at = data.draw(st.sampled_from([-1, 0, 1, 2, 3]))
        outcome, _ = execute(plan, store, Random(seed), epoch=epoch, at=at, changed=changed)
    outcome, _ = execute(plan, store, Random(seed), epoch=5, changed=changed)
    scratch, _ = execute(plan, MemoryStore(), Random(seed), epoch=1, changed=changed)
    assert value_of(outcome) == value_of(scratch)
    again, runner = execute(plan, store, Random(seed), epoch=6, changed=changed)
    assert value_of(again) == value_of(scratch)
    assert not committed(plan, records(store)) & runner.started.keys()
    other = data.draw(indexes)
    before = committed(plan, records(store))
    _, runner = execute(plan, store, Random(seed), epoch=7, changed=other)
    touched = depending_on(plan, changed ^ other)
    names = allocate_ids(to_graph(plan), TaskIds())
    kept = {name for index, name in enumerate(names) if index not in touched}
    assert not before & kept & runner.started.keys()


def depending_on(plan: Plan, changed: Collection[int]) -> set[int]:
    """The tasks that have to be looked at: those that changed, and all that depend on them."""
    hit = set(changed)
    for index, task in enumerate(plan):
        if hit.intersection(task.upstream):
            hit.add(index)
    return hit


WAITS = TaskOptions(is_event=True)
LATER = TaskOptions(retry=RetryOptions(attempts=3, wait_initial_s=10.0))


def planned(name: str, *upstream: int, options: TaskOptions, failures: str = "") -> PlannedTask:
    return PlannedTask(
        name=name,
        named_by_author=True,
        upstream=upstream,
        options=options,
        failures=failures,
        ends_with="value",
    )


class LosingRunner(PlanRunner):
    """What the task "takes" takes is gone once.

    :ivar begun: the attempts, in the order in which they began.
    """

    def __init__(self, plan: Plan, random: Random) -> None:
        super().__init__(plan, random)
        self.waiting: list[Errand] = []
        self.begun: list[tuple[str, int]] = []

    def start(self, errand: Errand) -> None:
        if errand.run.is_event:
            self.begun.append((errand.run.task_id, errand.run.attempt))
            self.waiting.append(errand)
        else:
            super().start(errand)

    def stop(self, errand: Errand) -> None:
        if errand in self.waiting:
            self.waiting.remove(errand)
            errand.on_done(Lost(failure=failure(errand.run, system=True)))
        else:
            super().stop(errand)

    def completion(self, run: TaskRun) -> AttemptEnd:
        self.begun.append((run.task_id, run.attempt))
        if run.task_id != "takes":
            return super().completion(run)
        is_first = [name for name, _ in self.begun].count("takes") == 1
        if not is_first:
            asyncio.get_running_loop().call_soon(self.end_waits)
        return InputsLost(positions=(0,), reason="gone") if is_first else super().completion(run)

    def end_waits(self) -> None:
        waiting, self.waiting = self.waiting, []
        for errand in waiting:
            errand.on_done(super().completion(errand.run))

    def attempts(self, name: str) -> list[int]:
        return [attempt for task_id, attempt in self.begun if task_id == name]


class PunctualRunner(LosingRunner):
    """The event comes before the stop."""

    def stop(self, errand: Errand) -> None:
        if errand in self.waiting:
            self.waiting.remove(errand)
            errand.on_done(PlanRunner.completion(self, errand.run))
        else:
            super().stop(errand)


def losing(beside: PlannedTask, runner_type: type[LosingRunner] = LosingRunner) -> LosingRunner:
    """Run a workflow that loses a result while a task beside it waits."""
    plan = (
        planned("made", options=TaskOptions(checkpoint=False)),
        beside,
        planned("takes", 0, options=TaskOptions()),
        planned("out", 1, 2, options=TaskOptions()),
    )
    outcome, runner = execute(plan, MemoryStore(), Random(1), runner_type=runner_type)
    assert value_of(outcome) == expected(plan)
    assert isinstance(runner, LosingRunner)
    made = runner.attempts("made")
    assert len(made) == len(set(made)) == 2
    return runner


@pytest.mark.timeout(60)
def test_a_lost_result_is_made_again_while_a_task_beside_it_waits_for_an_event():
    assert losing(planned("waits", options=WAITS)).attempts("waits") == [1, 2]


@pytest.mark.timeout(60)
def test_an_event_that_comes_before_it_is_stopped_for_a_lost_result_is_kept():
    assert losing(planned("waits", options=WAITS), PunctualRunner).attempts("waits") == [1]


@pytest.mark.timeout(120)
def test_a_lost_result_shortens_no_wait_for_the_next_attempt_beside_it():
    runner = losing(planned("fails", options=LATER, failures="A"))
    names = [name for name, _ in runner.begun]
    assert names.count("fails") == 2
    again = names.index("takes", names.index("takes") + 1)
    assert again < names.index("fails", names.index("fails") + 1)
