"""Who pays for a failed attempt, and what is left then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.graph import RetryOptions, TaskOptions
from airflow_provider_rayworkflow.workflow.scheduling.budgets import (
    NOTHING_SPENT,
    Budget,
    Failed,
    Spent,
    budget_of,
    charge,
    may_run_twice,
    seems_to_kill_nodes,
    wait_s,
)

BY_DEFAULT = TaskOptions()
ONCE = TaskOptions(max_retries=0)


def after(causes: list[Cause], options: TaskOptions = BY_DEFAULT, ran_s: float = 0.0) -> list[bool]:
    """Whether another attempt follows from each of these failures."""
    spent, due = NOTHING_SPENT, []
    for cause in causes:
        spent, is_due = charge(spent, Failed(cause, ran_s=ran_s), options)
        due.append(is_due)
    return due


@pytest.mark.parametrize(
    ("cause", "budget"),
    [
        (Cause.APPLICATION, Budget("retry_exceptions", 0)),
        (Cause.TIMEOUT, Budget("retry_exceptions", 0)),
        (Cause.NODE_LOST, Budget("max_preemptions", -1)),
        (Cause.OUT_OF_MEMORY, Budget("max_oom_retries", 2)),
        (Cause.CRASHED, Budget("max_crashes", 3)),
        (Cause.SYSTEM, Budget("max_retries", 3)),
    ],
)
def test_each_cause_has_a_default_budget(cause: Cause, budget: Budget):
    assert budget_of(cause, BY_DEFAULT) == budget


@pytest.mark.parametrize("cause", list(Cause))
def test_a_task_with_max_retries_0_never_runs_twice(cause: Cause):
    assert budget_of(cause, ONCE).limit == 0
    assert after([cause], ONCE) == [False]


def test_a_budget_that_is_given_counts_beside_max_retries_0():
    options = TaskOptions(max_retries=0, max_preemptions=1, max_oom_retries=1, max_crashes=1)
    for cause in (Cause.NODE_LOST, Cause.OUT_OF_MEMORY, Cause.CRASHED):
        assert after([cause, cause], options) == [True, False]
    assert after([Cause.SYSTEM], options) == [False]


def test_max_retries_sets_the_crashes_and_leaves_nodes_and_memory_alone():
    options = TaskOptions(max_retries=7)
    assert budget_of(Cause.CRASHED, options).limit == 7
    assert budget_of(Cause.SYSTEM, options).limit == 7
    assert budget_of(Cause.NODE_LOST, options).limit == -1
    assert budget_of(Cause.OUT_OF_MEMORY, options).limit == 2


@pytest.mark.parametrize("cause", [Cause.APPLICATION, Cause.TIMEOUT])
def test_exceptions_and_timeouts_share_the_retries_of_the_author(cause: Cause):
    options = TaskOptions(retry=RetryOptions(attempts=3))
    assert after([cause, Cause.APPLICATION, cause], options) == [True, True, False]


@given(st.lists(st.sampled_from(list(Cause)), max_size=30), st.integers(0, 4), st.integers(0, 4))
def test_no_cause_takes_from_the_budget_of_another(causes: list[Cause], most: int, other: int):
    options = TaskOptions(
        max_retries=most, max_crashes=other, max_oom_retries=other, max_preemptions=most
    )
    for cause in set(causes):
        of_cause = [
            due for one, due in zip(causes, after(causes, options), strict=True) if one is cause
        ]
        if not cause.is_of_task:
            limit = budget_of(cause, options).limit
            assert of_cause == [number < limit for number in range(len(of_cause))]


def test_the_fifth_short_attempt_in_a_row_that_loses_its_node_is_the_last():
    assert after([Cause.NODE_LOST] * 5) == [True, True, True, True, False]


def test_other_failures_and_long_attempts_begin_the_row_anew():
    spent = Spent(losses_in_a_row=4)
    for cause, ran_s in ((Cause.CRASHED, 0.0), (Cause.NODE_LOST, 601.0)):
        again, is_due = charge(spent, Failed(cause, ran_s=ran_s), BY_DEFAULT)
        assert (is_due, again.losses_in_a_row) == (True, 0)
    assert after([Cause.NODE_LOST] * 50, ran_s=601.0) == [True] * 50


def test_a_number_of_preemptions_that_is_given_counts_alone():
    options = TaskOptions(max_preemptions=6)
    assert after([Cause.NODE_LOST] * 7, options) == [True] * 6 + [False]
    assert not seems_to_kill_nodes(Spent(losses_in_a_row=7), Cause.NODE_LOST, options)


@given(st.floats(0, 1))
def test_waits_after_lost_nodes_double_to_a_minute_and_have_a_random_part(random: float):
    for row, longest in ((0, 1), (1, 1), (2, 2), (3, 4), (7, 60), (50, 60)):
        wait = wait_s(Spent(losses_in_a_row=row), Cause.NODE_LOST, BY_DEFAULT, random)
        assert longest / 2 <= wait <= longest
        assert wait == longest * (0.5 + random / 2)


def test_a_lack_of_memory_waits_and_a_crash_does_not_at_first():
    expected = {Cause.OUT_OF_MEMORY: [1.0, 2.0, 4.0], Cause.CRASHED: [0.0, 1.0, 2.0]}
    for cause, waits in expected.items():
        spent, found = NOTHING_SPENT, []
        for _ in range(3):
            spent, _ = charge(spent, Failed(cause), BY_DEFAULT)
            found.append(wait_s(spent, cause, BY_DEFAULT, 1.0))
        assert found == waits


def test_a_budget_says_who_pays_and_what_is_left():
    assert Budget("max_crashes", 3).text(1) == "max_crashes pays, 2 of 3 left"
    assert Budget("max_crashes", 0).text(1) == "max_crashes pays, 0 of 0 left"
    assert Budget("max_preemptions", -1).text(9) == "max_preemptions pays, without end"


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": 0},
        {"max_crashes": 0},
        {"max_oom_retries": 0},
        {"max_preemptions": 0},
    ],
    ids=str,
)
def test_a_task_that_must_not_run_twice_for_one_reason_shares_no_ray_task(options: dict[str, int]):
    assert may_run_twice(BY_DEFAULT)
    assert not may_run_twice(TaskOptions(**options))
