"""A wide workflow with failures, on real Ray."""

from __future__ import annotations

import pytest
import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def part(number, gate, ledger):
    ledger.write(number)
    if number % 33 == 7 and not gate.is_open:
        raise ValueError(f"part {number} is bad")
    return number


@ray.remote
def total(ledger, *numbers):
    ledger.write("total")
    return sum(numbers)


@ray.remote
def kills_its_worker(gate):
    if not gate.is_open:
        import os

        os._exit(1)
    return "lived"


@workflow.options(task_id="told", when="all_done")
@ray.remote
def tell(*given):
    return [str(one) if isinstance(one, Exception) else one for one in given]


BAD = [number for number in range(1_000) if number % 33 == 7][:30]


def test_of_a_thousand_tasks_with_thirty_bad_ones_one_resume_runs_thirty_and_what_depends(
    manager, new_id, gate, ledger
):
    numbers = [n for n in range(1_010) if n % 33 != 7 or n in BAD][:1_000]
    named = [
        part.options(**workflow.options(task_id=f"p{n}")).bind(n, gate, ledger) for n in numbers
    ]
    with pytest.raises(workflow.WorkflowExecutionError, match="is bad"):
        workflow.run(total.bind(ledger, *named), workflow_id=new_id, on_failure="finish")
    assert workflow.get_status(new_id) == "FAILED"
    assert sorted(map(int, ledger.lines())) == numbers
    failed = workflow.get_metadata(new_id)["failed_tasks"]
    assert failed["total"] == len(BAD) == 30
    assert {one["task_id"] for one in failed["first"]} == {f"p{n}" for n in BAD}
    gate.open()
    assert workflow.resume(new_id) == sum(numbers)
    again = ledger.lines()[1_000:]
    assert sorted(again[:-1], key=int) == [str(n) for n in BAD]
    assert again[-1] == "total"


def test_a_failure_of_the_system_is_told_to_a_task_that_takes_it_and_can_be_resumed(
    manager, new_id, gate
):
    lost = kills_its_worker.options(max_retries=0).bind(gate)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(tell.bind(lost), workflow_id=new_id)
    assert workflow.get_status(new_id) == "RESUMABLE"
    gate.open()
    assert workflow.resume(new_id) == ["lived"]
