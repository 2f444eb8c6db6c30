"""Long tasks on a cluster: what they save, the time that they get to stop, and when they are silent."""

import os
import signal
import time

import ray
from witness import is_alive, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.saved_keys import saved_folder


def saved_keys(root, workflow_id):
    store = WorkflowStore(LocalStore(root))
    return [entry.key for entry in store.bytes.list(saved_folder(workflow_id))]


@ray.remote(max_retries=-1)
def count(ledger, crash, until):
    """Count in states and in files, and die where the crash is armed."""
    context = workflow.get_context()
    number, latest = context.saved or 0, context.folder.latest()
    ledger.write(f"begin {number} {(latest / 'number').read_text() if latest else 0}")
    while number < until:
        number += 1
        with context.folder.writing() as path:
            (path / "number").write_text(str(number))
        context.save(number)
        if number == 3:
            crash.pass_by()
    return number


def test_a_killed_worker_loses_nothing_that_its_task_saved(
    manager, shared_root, new_id, ledger, crash
):
    crash.arm()
    assert workflow.run(count.bind(ledger, crash, 5), workflow_id=new_id) == 5
    assert ledger.lines() == ["begin 0 0", "begin 3 3"]
    assert saved_keys(shared_root, new_id) == []


@ray.remote
def save_when_stopped(ledger):
    context = workflow.get_context()
    ledger.write(f"begin {context.saved}")
    if context.saved:
        return context.saved
    wait_until(lambda: context.should_stop)
    context.save("what was done")
    ledger.write("saved")
    raise InterruptedError


def test_a_suspended_task_has_time_to_save_and_goes_on_with_that(manager, new_id, ledger):
    patient = save_when_stopped.options(**workflow.options(stop_grace_s=60))
    workflow.run_async(patient.bind(ledger), workflow_id=new_id)
    ledger.wait_for("begin None")
    workflow.suspend(new_id)
    assert ledger.lines() == ["begin None", "saved"]
    assert workflow.get_status(new_id) == "RESUMABLE"
    assert workflow.resume(new_id) == "what was done"


def test_a_task_that_goes_on_is_killed_when_its_time_to_stop_is_over(manager, new_id, ledger):
    @ray.remote
    def go_on():
        ledger.write(os.getpid())
        wait_until(lambda: workflow.get_context().should_stop)
        ledger.write("told")
        signal.pause()

    stubborn = go_on.options(**workflow.options(stop_grace_s=2))
    workflow.run_async(stubborn.bind(), workflow_id=new_id)
    wait_until(ledger.lines)
    workflow.cancel(new_id)
    pid, *said = ledger.lines()
    assert said == ["told"]
    wait_until(lambda: not is_alive(int(pid)))
    assert workflow.get_status(new_id) == "CANCELED"


def test_a_task_that_does_not_ask_is_killed_at_once(manager, new_id, ledger):
    @ray.remote
    def sleep():
        ledger.write(os.getpid())
        signal.pause()

    workflow.run_async(sleep.bind(), workflow_id=new_id)
    wait_until(ledger.lines)
    workflow.cancel(new_id)
    wait_until(lambda: not is_alive(int(ledger.lines()[0])))
    assert workflow.get_status(new_id) == "CANCELED"


AGAIN = workflow.Retry(attempts=2, on=workflow.WorkflowTaskTimeoutError, wait_initial=0)


def test_a_silent_task_is_stopped_and_tried_again_also_if_it_holds_the_interpreter(
    manager, new_id, ledger
):
    @ray.remote
    def hold_on():
        ledger.write("begin")
        if ledger.count("begin") == 1:
            sum(range(10**12))  # in C: no other thread of the process runs meanwhile
        return "done"

    watched = hold_on.options(**workflow.options(heartbeat_timeout_s=1, retry=AGAIN))
    assert workflow.run(watched.bind(), workflow_id=new_id) == "done"
    assert ledger.count("begin") == 2


def test_a_task_that_prints_is_not_silent(manager, new_id):
    @ray.remote
    def print_on():
        for number in range(25):
            print(number)
            time.sleep(0.2)
        return "done"

    watched = print_on.options(**workflow.options(heartbeat_timeout_s=1))
    assert workflow.run(watched.bind(), workflow_id=new_id) == "done"
