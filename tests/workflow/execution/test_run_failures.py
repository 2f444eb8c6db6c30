"""Runs that go on after a failure, and tasks that take failures, against a small model of both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_runs import ID, ForgetfulRunner, PlanRunner, execute, records, value_of
from plans import Plan, PlannedTask, expected, needed, plans

from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, status_after
from airflow_provider_rayworkflow.workflow.model.records import When
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd, TaskRun
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

SEEDS = st.integers(0, 2**32)
RULES = ["all_success", "all_success", "all_success", "all_done", "any_failed"]


def task(*upstream: int, when: When = "all_success", name: str = "", **options) -> PlannedTask:
    return PlannedTask(
        name=name,
        named_by_author=True,
        upstream=upstream,
        options=TaskOptions(when=when, max_retries=0, **options),
        failures="",
        ends_with="value",
    )


def named(*tasks: PlannedTask) -> Plan:
    """A plan whose tasks are called ``t0``, ``t1`` and so on."""
    return tuple(replace(one, name=f"t{index}") for index, one in enumerate(tasks))


def broken(plan: Plan, faults: dict[int, str]) -> Plan:
    """The plan with tasks that fail: ``"A"`` by an exception, ``"S"`` by the system."""
    return tuple(
        replace(one, failures="S" if faults.get(index) == "S" else "")
        if faults.get(index) != "A"
        else replace(one, ends_with="error")
        for index, one in enumerate(plan)
    )


@st.composite
def graphs(draw: st.DrawFn) -> Plan:
    """A plan of up to eight tasks without continuations."""
    tasks = []
    for index in range(draw(st.integers(1, 8))):
        upstream = draw(st.lists(st.integers(0, index - 1), max_size=3)) if index else []
        checkpoint = draw(st.sampled_from([None, None, None, False]))
        when = draw(st.sampled_from(RULES))
        tasks.append(task(*upstream, when=when, checkpoint=checkpoint))
    return named(*tasks)


FAULTS = st.dictionaries(st.integers(0, 7), st.sampled_from(["A", "A", "S"]), max_size=4)


@dataclass(frozen=True)
class End:
    """How one task of a run has ended; ``took`` says what its result was made of."""

    how: str  # "value", "failed", "not run" or "skipped"
    took: tuple = ()

    @property
    def is_bad(self) -> bool:
        return self.how in ("failed", "not run")

    @property
    def given(self) -> tuple:
        return (self.how, self.took if self.how == "value" else ())


def ends(plan: Plan, faults: Collection[int], stopped: Collection[int] = ()) -> dict[int, End]:
    """How the tasks of a run end that goes on after failures.

    :param stopped: tasks that a failure has kept from running.
    """
    found: dict[int, End] = {}
    for index in needed(plan):
        one = plan[index]
        took = tuple(found[other].given for other in one.upstream)
        is_bad = any(found[other].is_bad for other in one.upstream)
        when = one.options.when
        if when == "any_failed" and not is_bad:
            found[index] = End("skipped", took)
        elif (when == "all_success" and is_bad) or index in stopped:
            found[index] = End("not run")
        else:
            found[index] = End("failed" if index in faults else "value", took)
    return found


class NotingRunner(PlanRunner):
    """Notes what really runs: a task may be handed to it and not begun.

    :ivar ran: the tasks, with what each took last.
    """

    def __init__(self, plan: Plan, random: Random) -> None:
        super().__init__(plan, random)
        self.ran: dict[str, tuple] = {}

    def completion(self, run: TaskRun) -> AttemptEnd:
        self.ran[run.task_id] = run.inputs
        return super().completion(run)


def execute_plan(
    plan: Plan,
    store: MemoryStore,
    seed: int,
    *,
    epoch: int = 1,
    on_failure="finish",
    graph_epoch: int = 1,
    **options,
) -> tuple[Outcome, NotingRunner]:
    claim = replace(
        next_claim(ID, after=epoch - 1, manager_id="m", now=0, user_metadata={}, has_graph=False),
        base_epoch=1,
        graph_epoch=graph_epoch,
        on_failure=on_failure,
    )
    options = {"runner_type": NotingRunner} | options
    outcome, runner = execute(plan, store, Random(seed), epoch=epoch, claim=claim, **options)
    assert outcome is not None or "at" in options
    return outcome, runner


def names(indexes: Collection[int]) -> set[str]:
    return {f"t{index}" for index in indexes}


def failed_names(outcome: Outcome) -> set[str]:
    if outcome.failed_tasks is not None:
        return {one.task_id for one in outcome.failed_tasks.first}
    return {outcome.failure.task_id} if outcome.failure else set()


def status_of(faults: dict[int, str], found: dict[int, End]) -> WorkflowStatus:
    kinds = {faults[index] for index, end in found.items() if end.how == "failed"}
    if not kinds:
        return WorkflowStatus.SUCCESSFUL
    return WorkflowStatus.FAILED if "A" in kinds else WorkflowStatus.RESUMABLE


@given(graphs(), FAULTS, SEEDS)
def test_all_tasks_that_can_run_do_so_before_a_run_that_goes_on_has_failed(plan, faults, seed):
    outcome, runner = execute_plan(broken(plan, faults), MemoryStore(), seed)
    found = ends(plan, faults)
    assert set(runner.ran) == names(i for i, end in found.items() if end.how in RAN)
    assert failed_names(outcome) == names(i for i, end in found.items() if end.how == "failed")
    assert status_after(outcome) is status_of(faults, found)


RAN = ("value", "failed")


@given(graphs(), FAULTS, SEEDS)
def test_results_that_are_lost_change_nothing_of_how_a_run_ends_that_goes_on(plan, faults, seed):
    outcome, _ = execute_plan(
        broken(plan, faults), MemoryStore(), seed, runner_type=ForgetfulRunner
    )
    found = ends(plan, faults)
    assert failed_names(outcome) == names(i for i, end in found.items() if end.how == "failed")
    assert status_after(outcome) is status_of(faults, found)


@given(graphs(), FAULTS, SEEDS)
def test_results_that_are_lost_keep_no_failure_from_stopping_a_run(plan, faults, seed):
    runner = ForgetfulRunner
    faulty = broken(plan, faults)
    outcome, _ = execute_plan(faulty, MemoryStore(), seed, runner_type=runner, on_failure="stop")
    fails = any(end.how == "failed" for end in ends(plan, faults).values())
    assert (outcome.failure is not None) == fails
    assert failed_names(outcome) <= names(faults)


@pytest.mark.invariant(1)
@given(graphs(), FAULTS, FAULTS, SEEDS)
def test_a_resume_runs_what_failed_what_waited_and_what_took_another_end(plan, faults, later, seed):
    kept = tuple(replace(one, options=replace(one.options, checkpoint=None)) for one in plan)
    store = MemoryStore()
    before = ends(kept, faults)
    # What has a value is not run again where it takes the same: it can't fail then.
    later = {index: kind for index, kind in later.items() if how(before, index) != "value"}
    after = ends(kept, later)
    execute_plan(broken(kept, faults), store, seed)
    outcome, runner = execute_plan(broken(kept, later), store, seed, epoch=2)
    due = {
        index
        for index, end in after.items()
        if end.how in RAN and (before[index].how != "value" or before[index].took != end.took)
    }
    assert set(runner.ran) == names(due)
    assert status_after(outcome) is status_of(later, after)


def how(found: dict[int, End], index: int) -> str:
    return found[index].how if index in found else ""


@given(graphs(), FAULTS, SEEDS, st.integers(-1, 4), st.booleans())
def test_a_resume_after_a_fix_and_a_crash_gives_what_a_run_from_scratch_gives(
    plan, faults, seed, crash, is_new_graph
):
    for on_failure in ("stop", "finish"):
        store = MemoryStore()
        execute_plan(broken(plan, faults), store, seed, on_failure=on_failure)
        graph_epoch = 2 if is_new_graph else 1
        how_to = {"on_failure": on_failure, "graph_epoch": graph_epoch}
        execute_plan(plan, store, seed + 1, epoch=2, at=crash, **how_to)
        resumed, _ = execute_plan(plan, store, seed + 2, epoch=3, **how_to)
        scratch, _ = execute_plan(plan, MemoryStore(), seed + 3, on_failure=on_failure)
        assert resumed is not None
        assert value_of(resumed) == value_of(scratch) is not None


@given(graphs(), FAULTS, SEEDS)
def test_a_failure_that_stops_a_run_leaves_the_tasks_with_a_rule_to_run(plan, faults, seed):
    store = MemoryStore()
    outcome, runner = execute_plan(broken(plan, faults), store, seed, on_failure="stop")
    committed, failed = records(store), failed_names(outcome)
    if outcome.failure is None:
        assert not any(end.how == "failed" for end in ends(plan, faults).values())
        return
    is_kept = all(one.options.checkpoint is None for one in plan)
    if not is_kept or all(one.options.when == "all_success" for one in plan):
        return
    found: dict[int, str] = {}
    for index in needed(plan):
        name, when = f"t{index}", plan[index].options.when
        is_bad = any(found[other] == "bad" for other in plan[index].upstream)
        found[index] = "good" if name in committed else "bad"
        if when == "any_failed":
            assert (name in runner.ran) == is_bad
        elif when == "all_done":
            assert name in runner.ran
        elif is_bad:
            assert name not in runner.ran
        assert (name in failed) <= (name in runner.ran)


@given(plans(), SEEDS)
def test_a_run_that_goes_on_gives_the_same_result_as_one_that_stops(plan: Plan, seed: int):
    outcome, _ = execute_plan(plan, MemoryStore(), seed)
    assert value_of(outcome) == expected(plan)
    assert (outcome.failure is None) == (outcome.result is not None)


def test_a_failed_continuation_fails_its_creator_and_leaves_the_rest_to_run():
    inner = (task(name="bad"), task(0, name="after"))
    plan = (
        replace(task(name="creator"), ends_with=broken(inner, {0: "A"})),
        task(0, name="takes"),
        task(name="beside"),
        task(1, 2, name="end"),
        task(0, 3, name="told", when="all_done"),
    )
    outcome, runner = execute_plan(plan, MemoryStore(), 1)
    assert set(runner.ran) == {"creator", "bad", "beside", "told"}
    assert failed_names(outcome) == {"bad"}
    assert status_after(outcome) is WorkflowStatus.FAILED


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(12))
def test_a_failure_that_has_stopped_all_others_ends_the_run_though_another_one_is_caught(seed: int):
    inner = (task(name="lost"), task(0, name="told", when="all_done"))
    chain = [task(*([index - 1] if index else []), name=f"z{index}") for index in range(12)]
    plan = (
        *chain,
        replace(
            task(name="catches", catch_exceptions=True), ends_with=broken(inner, {0: "S", 1: "A"})
        ),
        task(11, 12, name="end"),
    )
    outcome, _ = execute_plan(plan, MemoryStore(), seed, on_failure="stop")
    assert outcome.failure is not None
    assert outcome.failure.task_id == "lost"
    assert status_after(outcome) is WorkflowStatus.RESUMABLE


def test_a_task_that_takes_failures_gets_value_exception_and_none():
    plan = broken(named(task(), task(), task(1), task(0, 1, 2, when="all_done")), {1: "A"})
    _, runner = execute_plan(plan, MemoryStore(), 1)
    value, exception, nothing = runner.ran["t3"]
    assert exception.inline == b"!"
    assert nothing.inline == b"null"
    assert value.inline not in (b"!", b"null")


def test_the_failures_of_a_run_are_counted_and_the_first_fifty_named():
    plan = broken(
        named(*[task() for _ in range(60)], task(*range(60))), dict.fromkeys(range(60), "A")
    )
    outcome, _ = execute_plan(plan, MemoryStore(), 1)
    assert outcome.failed_tasks is not None
    assert (outcome.failed_tasks.total, len(outcome.failed_tasks.first)) == (60, 50)
    assert outcome.failed_tasks.first[0].task_id == outcome.failure.task_id
    assert outcome.failed_tasks.table()[-1] == "and 10 more"


def test_a_skipped_task_is_committed_with_none():
    store = MemoryStore()
    plan = named(task(), task(0, when="any_failed"), task(0, 1))
    execute_plan(plan, store, 1)
    skipped = WorkflowStore(store).read_checkpoints(ID).records["t1"]
    assert skipped.is_skipped
    assert skipped.result.inline == b"null"


def test_a_run_goes_on_as_its_claim_says_and_a_resume_as_the_run_before():
    claim = next_claim("w", after=0, manager_id="m", now=0, user_metadata={}, has_graph=True)
    assert claim.on_failure == "stop"
    claim = replace(claim, on_failure="finish")
    assert resumed(claim).on_failure == "finish"


def resumed(claim: Claim) -> Claim:
    return next_claim(
        "w", after=1, manager_id="m", now=0, user_metadata={}, has_graph=False, continues=claim
    )
