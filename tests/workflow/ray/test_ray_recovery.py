"""The manager dies: Ray restarts it, and it goes on with what it owned, without being asked."""

import threading

import numpy as np
import pytest
import ray
from managers import crash_manager, manager_pid
from witness import wait_until

from airflow_provider_rayworkflow import workflow


@ray.remote
def note(ledger, name, *inputs):
    ledger.write(name)
    return [name, *inputs]


@ray.remote
def pass_gate(ledger, gate, name, *inputs):
    ledger.write(name)
    gate.wait()
    return [name, *inputs]


def test_a_restarted_manager_recovers_its_workflows_by_itself(fresh_manager, ledger, gate):
    root = fresh_manager()
    first = note.bind(ledger, "first")
    dag = note.bind(ledger, "last", pass_gate.bind(ledger, gate, "waits", first))
    ref = workflow.run_async(dag, workflow_id="recovered", metadata={"a": 1})
    ledger.wait_for("waits")
    before = manager_pid(root)
    crash_manager(root)
    gate.open()
    assert manager_pid(root) != before
    ledger.wait_for("last")  # without a call of any driver
    assert ray.get(ref) == ["last", ["waits", ["first"]]]  # and who waited is told
    assert workflow.get_status("recovered") is workflow.SUCCESSFUL
    assert workflow.get_metadata("recovered")["user_metadata"] == {"a": 1}
    assert ledger.count("first") == ledger.count("last") == 1


def test_a_run_that_blocks_does_not_notice_the_crash(fresh_manager, ledger, gate):
    root = fresh_manager()
    values = []
    thread = threading.Thread(
        target=lambda: values.append(
            workflow.run(pass_gate.bind(ledger, gate, "waits"), workflow_id="blocks")
        )
    )
    thread.start()
    ledger.wait_for("waits")
    crash_manager(root)
    gate.open()
    thread.join(timeout=60)
    assert values == [["waits"]]


def test_calls_during_a_restart_are_answered(fresh_manager, ledger, gate):
    root = fresh_manager()
    assert workflow.run(note.bind(ledger, "before"), workflow_id="before") == ["before"]
    crash_manager(root)
    assert workflow.get_status("before") is workflow.SUCCESSFUL
    crash_manager(root)
    assert workflow.run(note.bind(ledger, "after"), workflow_id="after") == ["after"]
    assert workflow.get_output("before") == ["before"]
    assert dict(workflow.list_all()) == {"before": "SUCCESSFUL", "after": "SUCCESSFUL"}
    assert ledger.lines() == ["before", "after"]


def test_waiting_workflows_wait_again_after_a_restart(fresh_manager, ledger, gate):
    root = fresh_manager(max_running_workflows=1, max_pending_workflows=2)
    refs = [
        workflow.run_async(pass_gate.bind(ledger, gate, name), workflow_id=name)
        for name in ("z", "b", "a")
    ]
    ledger.wait_for("z")
    crash_manager(root)
    wait_until(lambda: workflow.get_status("z") is workflow.RUNNING)
    assert workflow.get_status("a") is workflow.PENDING
    assert workflow.get_status("b") is workflow.PENDING
    # The limits are those that were set.
    with pytest.raises(ValueError, match="max_running_workflows=1"):
        workflow.init(max_running_workflows=5)
    gate.open()
    assert ray.get(refs) == [["z"], ["b"], ["a"]]


def test_ended_workflows_are_left_as_they_are(fresh_manager, ledger, gate):
    @ray.remote
    def fail():
        ledger.write("fail")
        raise ValueError("broken")

    root = fresh_manager()
    workflow.run(note.bind(ledger, "done"), workflow_id="done")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail.bind(), workflow_id="failed")
    for name, stop in (("canceled", workflow.cancel), ("suspended", workflow.suspend)):
        workflow.run_async(pass_gate.bind(ledger, gate, name), workflow_id=name)
        ledger.wait_for(name)
        stop(name)
    gate.open()
    before = ledger.lines()
    crash_manager(root)
    assert dict(workflow.list_all()) == {
        "done": "SUCCESSFUL",
        "failed": "FAILED",
        "canceled": "CANCELED",
        "suspended": "RESUMABLE",
    }
    assert ledger.lines() == before


def test_continuations_and_large_values_are_recovered(fresh_manager, ledger, gate):
    @ray.remote
    def make():
        ledger.write("make")
        return np.ones(2**18)

    @ray.remote
    def total(values, *more):
        gate.wait()
        return float(values.sum())

    @ray.remote
    def start(values):
        ledger.write("start")
        return workflow.continuation(total.bind(values * 2, pass_gate.bind(ledger, gate, "inside")))

    root = fresh_manager()
    ref = workflow.run_async(start.bind(make.bind()), workflow_id="large")
    ledger.wait_for("inside")
    crash_manager(root)
    gate.open()
    assert ray.get(ref) == 2.0**19
    assert ledger.count("make") == ledger.count("start") == 1


def test_the_crash_of_a_manager_does_not_count_as_a_retry(fresh_manager, ledger, gate):
    root = fresh_manager()
    task = pass_gate.options(max_retries=0)
    ref = workflow.run_async(task.bind(ledger, gate, "waits"), workflow_id="once")
    ledger.wait_for("waits")
    crash_manager(root)
    ledger.wait_for("waits", times=2)
    gate.open()
    assert ray.get(ref) == ["waits"]


def test_a_caller_that_waits_for_a_task_is_told_after_a_restart(fresh_manager, ledger, gate):
    root = fresh_manager()
    named = note.options(**workflow.options(task_id="named"))
    dag = named.bind(ledger, "last", pass_gate.bind(ledger, gate, "waits"))
    workflow.run_async(dag, workflow_id="asked")
    ledger.wait_for("waits")
    ref = workflow.get_output_async("asked", task_id="named")
    never = workflow.get_output_async("asked", task_id="never")
    crash_manager(root)
    gate.open()
    assert ray.get(ref) == ["last", ["waits"]]
    with pytest.raises(ValueError, match="never"):
        ray.get(never)
