"""cancel, suspend and delete."""

import os

import pytest
import ray
from witness import is_alive, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import (
    CanceledOutputError,
    IllegalTransitionError,
)


@ray.remote
def pass_gate(ledger, gate, value=None):
    ledger.write(os.getpid())
    gate.wait()
    return value


@ray.remote
def note(ledger, value=None):
    ledger.write("note")
    return value


@pytest.fixture
def running(manager, new_id, ledger, gate):
    """A workflow whose second task is running, in the process that ledger names last."""
    ref = workflow.run_async(pass_gate.bind(ledger, gate, note.bind(ledger, 5)), workflow_id=new_id)
    wait_until(lambda: len(ledger.lines()) == 2)
    return ref


# ---- cancel


def test_cancel_ends_the_workers_process_and_is_final(running, new_id, ledger):
    pid = int(ledger.lines()[-1])
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(running, timeout=0.1)
    assert workflow.get_status(new_id) is workflow.RUNNING
    assert is_alive(pid)
    workflow.cancel(new_id)
    assert workflow.get_status(new_id) is workflow.CANCELED
    wait_until(lambda: not is_alive(pid))
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(running)
    with pytest.raises(workflow.WorkflowNotResumableError, match="canceled"):
        workflow.resume(new_id)
    with pytest.raises(workflow.WorkflowNotResumableError, match="canceled"):
        workflow.resume_async(new_id)
    with pytest.raises(workflow.WorkflowNotResumableError, match="canceled"):
        workflow.run(note.bind(ledger), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.CANCELED


def test_the_output_of_a_canceled_workflow_raises(running, new_id, ledger):
    workflow.cancel(new_id)
    with pytest.raises(CanceledOutputError, match="is canceled") as caught:
        workflow.get_output(new_id)
    assert isinstance(caught.value, ValueError)  # the old library's type
    with pytest.raises(ValueError, match="is canceled"):
        ray.get(workflow.get_output_async(new_id))
    # What was committed stays.
    assert workflow.get_output(new_id, task_id="test_ray_stopping.note") == 5


def test_a_caller_that_waits_for_a_canceled_workflow_is_told(running, new_id):
    output = workflow.get_output_async(new_id)
    task = workflow.get_output_async(new_id, task_id="test_ray_stopping.pass_gate")
    never = workflow.get_output_async(new_id, task_id="never")
    assert ray.wait([output, task, never], timeout=0.5)[0] == []
    workflow.cancel(new_id)
    for ref in (output, task, never):
        with pytest.raises((workflow.WorkflowCancellationError, ValueError)):
            ray.get(ref, timeout=30)


def test_cancel_twice_is_cancel_once(running, new_id):
    workflow.cancel(new_id)
    workflow.cancel(new_id)
    assert workflow.get_status(new_id) is workflow.CANCELED


def test_a_canceled_workflow_runs_again_only_by_a_restart(running, new_id, ledger, gate):
    workflow.cancel(new_id)
    gate.open()
    dag = pass_gate.bind(ledger, gate, note.bind(ledger, 6))
    assert workflow.run(dag, workflow_id=new_id, on_existing="restart") == 6
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL
    assert ledger.count("note") == 2


def test_cancel_of_an_unknown_workflow_raises_and_creates_nothing(manager, new_id):
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.cancel(new_id)
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)


def test_cancel_of_a_successful_workflow_raises_and_keeps_its_output(manager, new_id, ledger):
    workflow.run(note.bind(ledger, 1), workflow_id=new_id)
    with pytest.raises(IllegalTransitionError, match="SUCCESSFUL"):
        workflow.cancel(new_id)
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL
    assert workflow.get_output(new_id) == 1


def test_cancel_of_a_failed_workflow_makes_it_final(manager, new_id):
    @ray.remote
    def fail():
        raise ValueError("broken")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail.bind(), workflow_id=new_id)
    workflow.cancel(new_id)
    assert workflow.get_status(new_id) is workflow.CANCELED
    with pytest.raises(workflow.WorkflowNotResumableError):
        workflow.resume(new_id)


def test_cancel_stops_all_tasks_that_are_running(manager, new_id, ledger, gate):
    @ray.remote
    def join(*values):
        return values

    tasks = [pass_gate.bind(ledger, gate, number) for number in range(3)]
    workflow.run_async(join.bind(*tasks), workflow_id=new_id)
    wait_until(lambda: len(ledger.lines()) == 3)
    workflow.cancel(new_id)
    pids = [int(line) for line in ledger.lines()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    wait_until(lambda: ray.available_resources().get("CPU") == 4.0)


def test_cancel_of_a_task_that_waits_for_a_worker(manager, new_id, ledger):
    @ray.remote(resources={"never": 1})
    def impossible():
        return 1

    ref = workflow.run_async(impossible.bind(), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RUNNING
    workflow.cancel(new_id)
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(ref)


# ---- suspend


def test_a_suspended_workflow_is_resumable_and_goes_on_where_it_was(running, new_id, ledger, gate):
    pid = int(ledger.lines()[-1])
    workflow.suspend(new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE
    wait_until(lambda: not is_alive(pid))
    with pytest.raises(workflow.WorkflowSuspendedError, match="Resume it"):
        ray.get(running)
    gate.open()
    assert workflow.resume(new_id) == 5
    assert ledger.count("note") == 1


def test_suspend_of_what_is_not_running(manager, new_id, ledger, running):
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.suspend(f"{new_id}-unknown")
    workflow.suspend(new_id)
    workflow.suspend(new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE
    workflow.cancel(new_id)
    with pytest.raises(IllegalTransitionError, match="CANCELED"):
        workflow.suspend(new_id)
    workflow.run(note.bind(ledger), workflow_id=f"{new_id}-done")
    with pytest.raises(IllegalTransitionError, match="SUCCESSFUL"):
        workflow.suspend(f"{new_id}-done")


# ---- delete


def test_a_deleted_workflow_is_as_if_it_had_never_been(manager, new_id, ledger):
    workflow.run(note.bind(ledger, 1), workflow_id=new_id, metadata={"a": 1})
    workflow.delete(new_id)
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)
    with pytest.raises(ValueError, match="No such workflow_id"):
        workflow.get_output(new_id)
    with pytest.raises(ValueError, match="No such workflow_id"):
        workflow.get_metadata(new_id)
    with pytest.raises(workflow.WorkflowNotResumableError):
        workflow.resume(new_id)
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.delete(new_id)
    assert new_id not in dict(workflow.list_all())
    assert workflow.run(note.bind(ledger, 2), workflow_id=new_id) == 2
    assert ledger.count("note") == 2
    assert workflow.get_metadata(new_id)["user_metadata"] == {}


def test_a_running_workflow_cannot_be_deleted(running, new_id, gate):
    with pytest.raises(workflow.WorkflowStillActiveError, match="DELETE") as caught:
        workflow.delete(new_id)
    assert caught.value.workflow_id == new_id
    assert caught.value.operation == "DELETE"
    gate.open()
    assert ray.get(running) == 5
    workflow.delete(new_id)


@pytest.mark.parametrize("stop", [workflow.cancel, workflow.suspend], ids=["cancel", "suspend"])
def test_a_stopped_workflow_can_be_deleted_and_its_id_used_again(running, new_id, ledger, stop):
    stop(new_id)
    workflow.delete(new_id)
    assert workflow.run(note.bind(ledger, 2), workflow_id=new_id) == 2
    workflow.delete(new_id)


def test_an_interrupted_workflow_has_no_output_and_can_be_deleted(fresh_manager, gate, ledger):
    @ray.remote
    def wait():
        ledger.write("waits")
        gate.wait()

    root = fresh_manager()
    workflow.run_async(wait.bind(), workflow_id="interrupted")
    ledger.wait_for("waits")
    fresh_manager(storage=root)
    with pytest.raises(ValueError, match="Cannot load output"):
        workflow.get_output("interrupted")
    with pytest.raises(ValueError, match="Cannot load output"):
        ray.get(workflow.get_output_async("interrupted"))
    workflow.delete("interrupted")
    with pytest.raises(ValueError, match="No such workflow_id"):
        workflow.get_output("interrupted")
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.delete("interrupted")
    assert workflow.list_all() == []
    assert workflow.run(note.bind(ledger, 2), workflow_id="interrupted") == 2


def test_delete_of_an_unknown_workflow_raises(manager, new_id):
    with pytest.raises(workflow.WorkflowNotFoundError, match=new_id):
        workflow.delete(new_id)


def test_delete_leaves_nothing_in_the_storage(fresh_manager, ledger):
    import numpy as np

    @ray.remote
    def large():
        return np.ones(2**16)

    root = fresh_manager()
    workflow.run(note.bind(ledger, large.bind()), workflow_id="gone")
    assert list(root.rglob("*gone*"))
    workflow.delete("gone")
    shared = {"leases", "changes", "index"}
    assert not [path for path in root.rglob("*") if path.is_file() and not shared & {*path.parts}]
