"""What a run does about attempts that fail of different causes, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from plan_runs import PlanRunner, execute, value_of
from plans import Plan, PlannedTask
from virtual_time import VirtualTimeLoop

from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.escalation import Escalation
from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, status_after
from airflow_provider_rayworkflow.workflow.model.records import RunningTask
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Errand,
    InputsLost,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore


class TimedRunner(PlanRunner):
    """Each attempt runs for a while, as a worker has said.

    :ivar began: when each attempt began.
    """

    takes_s = 0.0

    def __init__(self, plan: Plan, random: Random) -> None:
        super().__init__(plan, random)
        self.began: list[float] = []

    def start(self, errand: Errand) -> None:
        loop = asyncio.get_running_loop()
        self.began.append(loop.time())
        if self.takes_s:
            running = RunningTask(
                task_id=errand.run.task_id, attempt=errand.run.attempt, started_at=0
            )
            self.executor.attempts.has_begun(running)
        self.under_way.append([errand])
        loop.call_later(self.takes_s, self.end_one)


class LongRunner(TimedRunner):
    takes_s = 3600.0


class Noted(Metrics):
    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def attempt_failed(self, cause: Cause) -> None:
        self.causes.append(cause)


def task(failures: str, **options: Any) -> PlannedTask:
    return PlannedTask(
        name="t",
        named_by_author=True,
        upstream=(),
        options=TaskOptions(**options),
        failures=failures,
        ends_with="value",
    )


def run(
    failures: str, runner_type: type[PlanRunner] = TimedRunner, random: float = 1.0, **options: Any
) -> tuple[Outcome, TimedRunner, list[str]]:
    """How a run of one task ends, and the remarks of its log."""
    remarks: list[str] = []
    outcome, runner = execute(
        (task(failures, **options),),
        MemoryStore(),
        Random(1),
        runner_type=runner_type,
        new_loop=VirtualTimeLoop,
        random=lambda: random,
        on_remark=lambda level, task_id, attempt, text: remarks.append(text),
    )
    assert outcome is not None
    assert isinstance(runner, TimedRunner)
    return outcome, runner, remarks


@pytest.mark.parametrize(
    ("failures", "ended"),
    [
        ("CCC", "SUCCESSFUL"),
        ("CCCC", "RESUMABLE"),
        ("OO", "SUCCESSFUL"),
        ("OOO", "RESUMABLE"),
        ("SSS", "SUCCESSFUL"),
        ("SSSS", "RESUMABLE"),
        ("NNNN", "SUCCESSFUL"),
        ("NNNNN", "RESUMABLE"),
        ("NNNNCNNNNCNNNN", "SUCCESSFUL"),
        ("CCCOOSSSNNNN", "SUCCESSFUL"),
        ("A", "FAILED"),
        ("NCOSA", "FAILED"),
    ],
)
def test_each_cause_is_paid_from_its_own_budget(failures: str, ended: str):
    outcome, runner, _ = run(failures)
    assert status_after(outcome) == ended
    assert len(runner.began) == len(failures) + (ended == "SUCCESSFUL")


def test_attempts_after_lost_nodes_begin_later_and_later():
    _, runner, _ = run("NNNN")
    assert runner.began == [0, 1, 3, 7, 15]
    _, runner, _ = run("NNNN", random=0.0)
    assert runner.began == [0, 0.5, 1.5, 3.5, 7.5]


def test_a_task_whose_nodes_die_again_and_again_ends_the_run_with_the_reason():
    outcome, _, remarks = run("N" * 9)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.NODE_LOST
    assert "the task may kill its nodes" in outcome.failure.message
    assert "max_preemptions=20" in outcome.failure.message
    assert "the task may kill its nodes" in remarks[-1]


def test_a_task_that_runs_for_an_hour_each_time_loses_any_number_of_nodes():
    outcome, runner, _ = run("N" * 30, LongRunner)
    assert value_of(outcome) is not None
    # After each loss as after the first: the nodes were none that it kills.
    waits = [b - a - 3600 for a, b in zip(runner.began, runner.began[1:], strict=False)]
    assert waits == [1.0] * 30


def test_the_log_says_who_paid_and_what_is_left():
    _, _, remarks = run("CN")
    assert remarks == [
        "The attempt failed (crashed), and the task is tried again (max_crashes pays, 2 of 3 left): E: ",
        "The attempt failed (node_lost), and the task is tried again (max_preemptions pays, without end): E: ",
    ]


def test_the_log_says_which_budget_is_used_up():
    _, _, remarks = run("OOO")
    assert remarks[-1] == "The task failed (out_of_memory; max_oom_retries pays, 0 of 2 left): E: "


def test_every_failed_attempt_is_counted_by_its_cause():
    noted = Noted()
    execute(
        (task("CNOSA"),),
        MemoryStore(),
        Random(1),
        runner_type=TimedRunner,
        new_loop=VirtualTimeLoop,
        metrics=noted,
    )
    assert [cause.value for cause in noted.causes] == [
        "crashed",
        "node_lost",
        "out_of_memory",
        "system",
        "application",
    ]


class OnceForgetfulRunner(PlanRunner):
    """The result that "takes" takes is gone once, after two crashes of "takes"."""

    has_forgotten = False

    def completion(self, run: TaskRun) -> AttemptEnd:
        if run.task_id == "takes" and run.attempt == 3 and not self.has_forgotten:
            self.has_forgotten = True
            return InputsLost(positions=(0,), reason="gone")
        return super().completion(run)


@pytest.mark.parametrize(("crashes", "ended"), [("CCC", "SUCCESSFUL"), ("CCCC", "RESUMABLE")])
def test_what_is_spent_stays_spent_when_lost_results_are_made_again(crashes: str, ended: str):
    made = PlannedTask(
        name="made",
        named_by_author=True,
        upstream=(),
        options=TaskOptions(checkpoint=False),
        failures="",
        ends_with="value",
    )
    takes = PlannedTask(
        name="takes",
        named_by_author=True,
        upstream=(0,),
        options=TaskOptions(isolate=True),
        failures=crashes,
        ends_with="value",
    )
    outcome, _ = execute(
        (made, takes),
        MemoryStore(),
        Random(1),
        runner_type=OnceForgetfulRunner,
        new_loop=VirtualTimeLoop,
    )
    assert outcome is not None
    assert status_after(outcome) == ended


class AskingRunner(TimedRunner):
    """Notes what each attempt asks for."""

    def __init__(self, plan: Plan, random: Random) -> None:
        super().__init__(plan, random)
        self.asked: list[dict[str, float]] = []
        self.shares: list[bool] = []

    def start(self, errand: Errand) -> None:
        self.asked.append(dict(errand.run.asks))
        self.shares.append(errand.run.can_share)
        super().start(errand)


GROWS = Escalation(first={"memory": 100}, factors={"memory": 2.0}, limits={"memory": 300})


def test_after_a_lack_of_memory_the_next_attempt_asks_for_more():
    outcome, runner, remarks = run("OCO", AskingRunner, escalation=GROWS)
    assert isinstance(runner, AskingRunner)
    assert status_after(outcome) == "SUCCESSFUL"
    # A crash is no reason to ask for more, and no reason to ask for less.
    assert runner.asked == [{}, {"memory": 200}, {"memory": 200}, {"memory": 300}]
    assert runner.shares == [True, False, False, False]
    assert (
        "(max_oom_retries pays, 1 of 2 left; the next attempt asks for memory=200 B)" in remarks[0]
    )


def test_more_may_be_asked_for_after_other_causes():
    escalation = replace(GROWS, on=(Cause.CRASHED, Cause.APPLICATION))
    _, runner, _ = run(
        "OCA", AskingRunner, escalation=escalation, max_retries=3, retry_exceptions=True
    )
    assert isinstance(runner, AskingRunner)
    assert runner.asked == [{}, {}, {"memory": 200}, {"memory": 300}]
