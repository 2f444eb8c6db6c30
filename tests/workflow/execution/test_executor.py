"""The executor against random workflows, orders of completion, and crashes at its commits."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_runs import ForgetfulRunner, execute, records, value_of
from plans import Plan, committed, expected, plans, to_graph

from airflow_provider_rayworkflow.workflow.model.graph import allocate_ids
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
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
