"""The checker of tasks that fail finds what it looks for: budgets, policies, rules and saved progress."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledgers import Line
from policy_checks import check_memory, check_policies, check_rules, check_stop
from sample_records import status_record
from shapes import Plan

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Result,
    StatusRecord,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_put


def lines_of(task_id: str, *noted: tuple[Any, ...]) -> list[Line]:
    """Lines of a task: what, and if they differ from those before, attempt, number and way."""
    lines, attempt = [], 1
    for what, *more in noted:
        number, way = 0, ""
        if what == "start":
            attempt = more[0]
        elif what == "fails":
            way = more[0]
        elif more:
            number = more[0]
        lines.append(
            Line(
                what=what,
                workflow_id="w",
                task_id=task_id,
                epoch=1,
                attempt=attempt,
                pid=2,
                parent=1,
                at=1.0,
                number=number,
                way=way,
            )
        )
    return lines


def plan_of(shape: str, size: int = 1) -> Plan:
    return Plan(workflow_id="w", shape=shape, size=size, pause_s=0, on_failure="finish")


def plan_that_crashes(shape: str = "troubled") -> Plan:
    """One task, alone in its Ray task, that crashes once, and may."""
    for seed in range(1_000):
        plan = replace(plan_of(shape), seed=seed)
        trouble = plan.troubles["trouble_0"]
        if trouble.ways == ("exits",) and trouble.crashes == 1 and trouble.is_alone:
            return plan
    raise LookupError(shape)


def problems(plan: Plan, lines: list[Line]) -> list[str]:
    return check_policies(plan, lines, spares_workers=True, may_overlap=False)


def test_attempts_that_are_paid_are_no_problem():
    lines = lines_of("trouble_0", ("start", 1), ("fails", "exits"), ("start", 2))
    assert problems(plan_that_crashes(), lines) == []


def test_an_attempt_that_no_budget_pays_is_found():
    crash = ("fails", "exits")
    lines = lines_of("trouble_0", ("start", 1), crash, ("start", 2), crash, ("start", 3))
    [problem] = problems(plan_that_crashes(), lines)
    assert "began as 1.3 after {'crashes': 2}" in problem


def test_an_exception_is_not_paid_by_the_budget_of_crashes():
    lines = lines_of("trouble_0", ("start", 1), ("fails", "raises"), ("start", 2))
    [problem] = problems(plan_that_crashes(), lines)
    assert "after {'retry': 1}" in problem


def test_attempts_without_end_are_found():
    [problem] = problems(plan_that_crashes(), lines_of("trouble_0", ("start", 99)))
    assert "had 99 attempts" in problem


def test_progress_that_is_kept_is_no_problem():
    lines = lines_of("trouble_0", ("start", 1), ("saved", 1), ("start", 2), ("from", 1))
    assert problems(plan_of("saving"), lines) == []


def test_progress_that_is_lost_is_found():
    lines = lines_of("trouble_0", ("start", 1), ("saved", 1), ("start", 2), ("from", 0))
    [problem] = problems(plan_of("saving"), lines)
    assert "went on from 0" in problem


def test_steps_that_are_done_more_than_once_for_a_kill_are_found():
    lines = lines_of("trouble_0", ("start", 1), *[("step", 1)] * 9)
    [problem] = problems(plan_of("saving"), lines)
    assert "did 9 steps" in problem


@pytest.mark.parametrize(
    ("asked", "is_well"),
    [([64, 128, 200], True), ([64, 64, 128], True), ([64, 200], False), ([128, 64], False)],
    ids=str,
)
def test_what_a_task_asks_for_after_a_lack_of_memory_is_looked_at(asked: list[int], is_well: bool):
    lines = lines_of("eat", *[("asks", number) for number in asked])
    assert (check_memory(plan_of("hungry"), lines) == []) is is_well


def test_a_notice_that_ran_twice_is_found():
    [problem] = check_rules(plan_of("ruled"), lines_of("tell", ("start", 1), ("start", 2)))
    assert problem == "w: tell ran 2 times"


def test_a_good_task_that_ran_again_after_the_repair_is_found():
    plan = plan_of("finishing", 2)
    [good] = {"part_0", "part_1"} - plan.bad_parts
    [problem] = check_rules(plan, lines_of(good, ("start", 1), ("start", 2)))
    assert "ran again" in problem


# ---- how a run ended


def stopped(committed: set[str], failed: str, cause: Cause) -> tuple[WorkflowStore, StatusRecord]:
    """A store with what is committed, and the status of a run that this task has failed."""
    store = WorkflowStore(MemoryStore())
    result = Result(encoding=Encoding.JSON, inline=b"1")
    times = TaskTimes(started_at=11, ended_at=12, attempt=1)
    JournalWriter(store.bytes, "w", 1).commit(
        [TaskRecord(task_id=one, result=result, times=times) for one in sorted(committed)]
    )
    is_crash = cause is Cause.CRASHED
    record = status_record(
        WorkflowStatus.RESUMABLE if is_crash else WorkflowStatus.FAILED,
        epoch=1,
        number=1,
        failure=TaskFailure(task_id=failed, type="E", message="", traceback="", cause=cause),
    )
    put = status_put(record)
    store.bytes.put(put.key, put.data)
    return store, record


@pytest.mark.parametrize(("left_out", "number"), [((), 0), (("behind_1",), 1)], ids=["all", "one"])
def test_a_run_that_keeps_going_has_committed_all_that_does_not_depend_on_a_failure(
    left_out: tuple[str, ...], number: int
):
    committed = {"part_1", "behind_1"} - set(left_out)
    store, record = stopped(committed, "part_0", Cause.APPLICATION)
    found = check_stop(store, plan_of("finishing", 2), record, [], spares_workers=False)
    assert len(found) == number


def test_a_run_that_ends_before_a_budget_is_used_up_is_found():
    store, record = stopped(set(), "trouble_0", Cause.CRASHED)
    lines = lines_of("trouble_0", ("start", 1), ("fails", "exits"))
    plan = plan_that_crashes()
    [problem] = check_stop(store, plan, record, lines, spares_workers=True)
    assert "crashed 1 times, of 1 that are paid" in problem
    crashed_twice = lines + lines_of("trouble_0", ("start", 2), ("fails", "exits"))
    assert check_stop(store, plan, record, crashed_twice, spares_workers=True) == []


def test_an_attempt_that_was_lost_before_it_began_is_paid_like_a_crash():
    store, record = stopped(set(), "trouble_0", Cause.CRASHED)
    lines = lines_of("trouble_0", ("start", 1), ("fails", "exits"))
    said = LogLine(1.0, "ERROR", "trouble_0", 2, "The task failed (crashed)")
    put = store.logs.put(record.workflow_id, record.epoch, 1, [said])
    store.bytes.put(put.key, put.data)
    assert check_stop(store, plan_that_crashes(), record, lines, spares_workers=True) == []
