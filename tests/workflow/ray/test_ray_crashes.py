"""Workers that are killed, and what a resume then runs: only what has no checkpoint."""

import os
import signal

import numpy as np
import processes
import pytest
import ray
from witness import is_alive, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError

unchecked = workflow.options(checkpoint=False)
checked = workflow.options(checkpoint=True)


@ray.remote
def note(ledger, name, *inputs):
    ledger.write(name)
    return [name, *inputs]


@ray.remote(max_retries=0)
def pass_by(crash, ledger, name, *inputs):
    ledger.write(name)
    crash.pass_by()
    return [name, *inputs]


def killed(dag, new_id):
    """Run until a worker is killed."""
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE


def test_a_killed_worker_leaves_the_workflow_resumable(manager, new_id, crash, ledger):
    crash.arm()
    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(pass_by.bind(crash, ledger, "a"), workflow_id=new_id)
    assert caught.value.task_id == "test_ray_crashes.pass_by"
    assert "WorkerCrashedError" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert workflow.get_status(new_id) is workflow.RESUMABLE
    assert workflow.resume(new_id) == ["a"]
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL


def test_a_resume_runs_only_what_was_not_committed(manager, new_id, crash, ledger):
    crash.arm()
    first = note.bind(ledger, "first")
    killed(note.bind(ledger, "last", pass_by.bind(crash, ledger, "crash", first), first), new_id)
    assert workflow.resume(new_id) == ["last", ["crash", ["first"]], ["first"]]
    assert ledger.lines() == ["first", "crash", "crash", "last"]


def test_a_second_resume_runs_nothing(manager, new_id, crash, ledger):
    crash.arm()
    killed(pass_by.bind(crash, ledger, "a"), new_id)
    assert workflow.resume(new_id) == ["a"]
    crash.arm()
    assert workflow.resume(new_id) == ["a"]
    assert workflow.run(pass_by.bind(crash, ledger, "a"), workflow_id=new_id) == ["a"]
    assert ledger.count("a") == 2


def test_a_resume_may_crash_again(manager, new_id, crash, ledger):
    crash.arm(times=2)
    killed(pass_by.bind(crash, ledger, "a", note.bind(ledger, "b")), new_id)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.resume(new_id)
    assert workflow.resume(new_id) == ["a", ["b"]]
    assert ledger.lines() == ["b", "a", "a", "a"]


def test_branches_that_ended_before_the_crash_do_not_run_again(
    manager, new_id, crash, ledger, gate
):
    @ray.remote(max_retries=0)
    def crash_last(*inputs):
        ledger.wait_for("three")
        crash.pass_by()
        return inputs

    branches = [note.bind(ledger, name) for name in ("one", "two", "three")]
    crash.arm()
    killed(crash_last.bind(*branches), new_id)
    assert workflow.resume(new_id) == (["one"], ["two"], ["three"])
    assert sorted(ledger.lines()) == ["one", "three", "two"]


def test_a_task_without_a_checkpoint_runs_again_if_its_result_is_needed(
    manager, new_id, crash, ledger
):
    crash.arm()
    kept = note.options(**checked).bind(ledger, "kept")
    dropped = note.options(**unchecked).bind(ledger, "dropped", kept)
    killed(pass_by.bind(crash, ledger, "crash", dropped), new_id)
    assert workflow.resume(new_id) == ["crash", ["dropped", ["kept"]]]
    assert ledger.lines() == ["kept", "dropped", "crash", "dropped", "crash"]


def test_a_task_without_a_checkpoint_does_not_run_again_if_no_task_needs_it(
    manager, new_id, crash, ledger
):
    crash.arm()
    dropped = note.options(**unchecked).bind(ledger, "dropped")
    kept = note.bind(ledger, "kept", dropped)
    killed(pass_by.bind(crash, ledger, "crash", kept), new_id)
    assert workflow.resume(new_id) == ["crash", ["kept", ["dropped"]]]
    assert ledger.lines() == ["dropped", "kept", "crash", "crash"]


def test_the_output_of_a_task_without_a_checkpoint_is_not_kept(manager, new_id, ledger):
    skipped = note.options(**workflow.options(checkpoint=False, task_id="skipped"))
    workflow.run(note.bind(ledger, "a", skipped.bind(ledger, "b")), workflow_id=new_id)
    with pytest.raises(ValueError, match="skipped"):
        workflow.get_output(new_id, task_id="skipped")
    assert workflow.get_output(new_id) == ["a", ["b"]]


def test_the_output_of_a_workflow_is_kept_without_checkpoints_too(manager, new_id, ledger):
    @workflow.options(checkpoint=False)
    @ray.remote
    def continue_twice(depth):
        if depth:
            return workflow.continuation(continue_twice.bind(depth - 1))
        ledger.write()
        return "end"

    assert workflow.run(continue_twice.bind(2), workflow_id=new_id) == "end"
    assert workflow.get_output(new_id) == "end"
    assert workflow.resume(new_id) == "end"
    assert ledger.count() == 1


def test_a_caught_output_of_a_continuation_without_checkpoints_is_kept(manager, new_id):
    @ray.remote
    def fail(value):
        raise ValueError("caught")

    @ray.remote
    def middle():
        return workflow.continuation(fail.bind(1))

    @ray.remote
    def start(task):
        return workflow.continuation(task.options(**workflow.options(catch_exceptions=True)).bind())

    dag = start.options(**unchecked).bind(middle)
    value, error = workflow.run(dag, workflow_id=new_id)
    assert value is None
    assert str(error) == "caught"
    assert str(workflow.get_output(new_id)[1]) == "caught"


def test_tasks_of_a_continuation_inherit_checkpoint(manager, new_id, crash, ledger):
    @ray.remote
    def start():
        kept = note.options(**checked).bind(ledger, "kept")
        inherits = note.bind(ledger, "inherits", kept)
        return workflow.continuation(pass_by.bind(crash, ledger, "crash", inherits))

    crash.arm()
    killed(note.bind(ledger, "last", start.options(**unchecked).bind()), new_id)
    assert workflow.resume(new_id) == ["last", ["crash", ["inherits", ["kept"]]]]
    assert ledger.count("inherits") == 2
    assert ledger.count("last") == 1


@pytest.mark.parametrize(
    "flags", [(False, False), (False, True), (True, False), (True, True)], ids=str
)
def test_large_values_survive_a_crash_with_and_without_checkpoints(manager, new_id, crash, flags):
    make_flag, double_flag = flags

    @ray.remote
    def make():
        return np.ones(2**21)  # 16 MB

    @ray.remote
    def double(values):
        return values * 2

    @ray.remote(max_retries=0)
    def total(first, second):
        crash.pass_by()
        return float(first.sum() + second.sum())

    made = make.options(**workflow.options(checkpoint=make_flag)).bind()
    doubled = double.options(**workflow.options(checkpoint=double_flag)).bind(made)
    crash.arm()
    killed(total.bind(made, doubled), new_id)
    assert workflow.resume(new_id) == 3 * 2**21
    assert workflow.resume(new_id) == 3 * 2**21


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_value_whose_worker_died_comes_from_the_storage_or_is_made_again(
    manager, ledger, gate, kept
):
    @workflow.options(checkpoint=kept)
    @ray.remote
    def make():
        ledger.write(f"make {os.getpid()}")
        return np.ones(2**20)

    @ray.remote
    def wait():
        ledger.write("waiting")
        gate.wait()
        return 1

    @ray.remote(max_retries=0)
    def total(values, one):
        ledger.write("total")
        return float(values.sum()) + one

    started = workflow.run_async(total.bind(make.bind(), wait.bind()))
    ledger.wait_for("waiting")
    pids = wait_until(
        lambda: [int(line.split()[1]) for line in ledger.lines() if line.startswith("make")]
    )
    wait_until(lambda: ray.available_resources().get("CPU") == 3.0)  # make has ended
    processes.send(pids[0], signal.SIGKILL)
    wait_until(lambda: not is_alive(pids[0]))
    gate.open()
    assert ray.get(started) == 2**20 + 1
    # Without a checkpoint it is made again, unless Ray's own memory of the node still had it.
    made = [line for line in ledger.lines() if line.startswith("make")]
    assert len(made) == 1 or not kept
    assert ledger.count("total") == 1


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def change(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


@pytest.fixture
def half_done(manager, new_id, shared_root, ledger, gate):
    """A failed workflow with a large checkpoint, and that checkpoint's file."""

    @ray.remote
    def make():
        ledger.write("make")
        return np.ones(2**17)

    @ray.remote
    def total(values):
        if not gate.is_open:
            raise ValueError("not yet")
        return float(values.sum())

    before = set(shared_root.rglob("*.value"))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(total.bind(make.bind()), workflow_id=new_id)
    [file] = set(shared_root.rglob("*.value")) - before
    gate.open()
    return file


@pytest.mark.parametrize("damage", [cut_off, change, remove])
def test_a_damaged_checkpoint_is_noticed_and_its_task_runs_again(half_done, new_id, ledger, damage):
    damage(half_done)
    assert workflow.resume(new_id) == 2**17
    assert ledger.count("make") == 2


def test_an_intact_checkpoint_is_used(half_done, new_id, ledger):
    assert workflow.resume(new_id) == 2**17
    assert ledger.count("make") == 1


@pytest.mark.parametrize("damage", [cut_off, change, remove])
def test_a_damaged_output_is_reported_by_name_and_never_returned(
    manager, new_id, shared_root, damage
):
    @ray.remote
    def make():
        return np.ones(2**17)

    before = set(shared_root.rglob("*.value"))
    workflow.run(make.bind(), workflow_id=new_id)
    [file] = set(shared_root.rglob("*.value")) - before
    damage(file)
    with pytest.raises(CorruptedDataError, match=file.name):
        workflow.get_output(new_id)
    # Ray wraps what goes wrong while a driver loads a value.
    with pytest.raises((CorruptedDataError, ray.exceptions.RaySystemError), match=file.name):
        ray.get(workflow.get_output_async(new_id))
    assert len(workflow.run(make.bind(), workflow_id=new_id, on_existing="restart")) == 2**17


def test_references_in_arguments_are_there_after_a_crash(manager, new_id, crash):
    @ray.remote(max_retries=0)
    def read(refs, value):
        crash.pass_by()
        return ray.get(refs), value

    crash.arm()
    killed(read.bind([ray.put(1), ray.put(2)], ray.put(3)), new_id)
    assert workflow.resume(new_id) == ([1, 2], 3)


def test_references_in_results_are_there_after_a_crash(manager, new_id, crash):
    @ray.remote
    def make():
        return [ray.put("inside")]

    @ray.remote(max_retries=0)
    def read(refs):
        crash.pass_by()
        return ray.get(refs)

    crash.arm()
    killed(read.bind(make.bind()), new_id)
    assert workflow.resume(new_id) == ["inside"]


def test_crashes_that_take_a_tasks_input_along_use_up_its_retries(manager, new_id, crash, ledger):
    @unchecked
    @ray.remote
    def make():
        return np.ones(2**20)  # held by the worker

    crash.arm(times=100)
    killed(pass_by.options(max_retries=2).bind(crash, ledger, "a", make.bind()), new_id)
    assert 3 <= ledger.count("a") <= 4  # one more if it was in one Ray task with its input


def test_the_retry_counter_begins_anew_with_a_resume(manager, new_id, crash, ledger):
    task = pass_by.options(max_retries=1)
    crash.arm(times=3)
    killed(task.bind(crash, ledger, "a"), new_id)
    assert workflow.resume(new_id) == ["a"]
    assert ledger.count("a") == 4


def test_epoch_and_attempt_tell_tries_apart(manager, new_id, crash, ledger):
    @ray.remote(max_retries=1)
    def tell():
        context = workflow.get_context()
        ledger.write(f"{context.epoch}.{context.attempt}")
        crash.pass_by()
        return context.workflow_id, context.task_id

    crash.arm(times=3)
    dag = tell.options(**workflow.options(task_id="tell")).bind()
    killed(dag, new_id)
    assert workflow.resume(new_id) == (new_id, "tell")
    assert ledger.lines() == ["1.1", "1.2", "2.1", "2.2"]
