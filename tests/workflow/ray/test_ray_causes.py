"""Ways in which an attempt fails, for real: each is paid from the budget of its cause."""

import os

import pytest
import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def fail_in_ways(ledger, ways):
    """Fails in each of these ways, one an attempt, and then returns."""
    import ctypes
    import signal

    done = ledger.count()
    ledger.write()
    match ways[done] if done < len(ways) else "":
        case "exits":
            os._exit(0)
        case "segfaults":
            ctypes.string_at(0)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raises":
            raise ValueError("as it was told")
    return "value"


def failed_attempts(workflow_id):
    return workflow.get_metadata(workflow_id)["failed_attempts"]


@pytest.mark.parametrize("way", ["exits", "segfaults", "killed"])
def test_the_end_of_a_worker_is_a_crash(manager, new_id, ledger, way):
    options = workflow.options(max_crashes=1, max_preemptions=0, max_oom_retries=0)
    task = fail_in_ways.options(**options)
    assert workflow.run(task.bind(ledger, [way]), workflow_id=new_id) == "value"
    assert failed_attempts(new_id) == {"crashed": 1}


def test_crashes_and_exceptions_are_counted_by_cause(manager, new_id, ledger):
    options = workflow.options(max_crashes=2, retry=workflow.Retry(attempts=2, wait_initial=0))
    task = fail_in_ways.options(**options)
    ways = ["exits", "raises", "segfaults"]
    assert workflow.run(task.bind(ledger, ways), workflow_id=new_id) == "value"
    assert failed_attempts(new_id) == {"crashed": 2, "application": 1}


def test_a_task_that_may_not_crash_ends_the_run_with_the_cause(manager, new_id, ledger):
    task = fail_in_ways.options(**workflow.options(max_crashes=0))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(task.bind(ledger, ["exits"]), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE
    assert workflow.get_metadata(new_id)["failure"]["cause"] == "crashed"
    assert workflow.resume(new_id) == "value"
    assert ledger.count() == 2


def test_a_time_limit_is_a_cause_of_its_own(manager, new_id, gate):
    @ray.remote
    def wait_long():
        gate.wait()

    task = wait_long.options(**workflow.options(timeout_s=0.2))
    with pytest.raises(workflow.WorkflowExecutionError, match="timeout_s"):
        workflow.run(task.bind(), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.FAILED
    assert failed_attempts(new_id) == {"timeout": 1}


@pytest.mark.parametrize("option", ["max_preemptions", "max_oom_retries", "max_crashes"])
@pytest.mark.parametrize("number", [-2, 1.5, True, "3", 2**40], ids=repr)
def test_a_budget_is_a_whole_number(option, number):
    with pytest.raises(ValueError, match=option):
        workflow.options(**{option: number})


def test_the_budgets_that_were_given_are_shown(manager, new_id):
    @ray.remote
    def nothing():
        return None

    options = workflow.options(
        max_preemptions=4,
        max_crashes=0,
        task_id="a",
        escalate={"num_cpus": 2},
        limit={"num_cpus": 4},
    )
    workflow.run(nothing.options(**options).bind(), workflow_id=new_id)
    shown = workflow.get_metadata(new_id, "a")["task_options"]
    assert (shown["max_preemptions"], shown["max_crashes"]) == (4, 0)
    assert (shown["escalate"], shown["limit"]) == ({"num_cpus": 2.0}, {"num_cpus": 4.0})
    assert "max_oom_retries" not in shown
