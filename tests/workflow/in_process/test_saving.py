"""What tasks save while they run: over attempts, resumes, forks and restarts, and when it is gone."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import effects
import numpy as np
import pytest
import ray
from effects import calls
from faulty import FaultyStore
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.saved_keys import saved_folder

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    return MemoryStore() if request.param == "memory" else open_store(str(tmp_path))


@pytest.fixture
def run(store: ByteStore) -> Iterator[testing.InProcessWorkflows]:
    with testing.in_process(store) as workflows:
        yield workflows


def saved_keys(store: ByteStore, workflow_id: str = "w") -> list[str]:
    return [entry.key for entry in store.list(saved_folder(workflow_id))]


@ray.remote
def count(until: int, *_, fails_at: int = -1):
    """Count from where the last attempt stopped; fails once on its way."""
    context = workflow.get_context()
    number = context.saved or 0
    calls.append(("begin", number))
    while number < until:
        number += 1
        calls.append(number)
        context.save(number)
        if number == fails_at and calls.count(number) == 1:
            raise OSError("not yet")
    return number


@ray.remote
def fail(*_):
    raise OSError("broken")


@ray.remote
def ignore(*values):
    return len(values)


def test_a_failed_workflow_keeps_the_state_and_a_resume_goes_on_with_it(run, store):
    with pytest.raises(WorkflowExecutionError):
        run.run(count.bind(5, fails_at=3), workflow_id="w")
    assert len(saved_keys(store)) == 1
    assert run.resume("w") == 5
    assert calls == [("begin", 0), 1, 2, 3, ("begin", 3), 4, 5]
    assert saved_keys(store) == []


def test_the_next_attempt_of_a_run_goes_on_with_the_state(run, store):
    retried = count.options(**workflow.options(retry=workflow.Retry(attempts=2, wait_initial=0)))
    assert run.run(retried.bind(5, fails_at=3), workflow_id="w") == 5
    assert calls == [("begin", 0), 1, 2, 3, ("begin", 3), 4, 5]
    assert saved_keys(store) == []


def test_another_manager_goes_on_with_the_state(store):
    for _ in range(2):
        with testing.in_process(store) as workflows, suppress(WorkflowExecutionError):
            workflows.run(count.bind(5, fails_at=3), workflow_id="w")
    assert calls == [("begin", 0), 1, 2, 3, ("begin", 3), 4, 5]


def test_what_a_task_saved_is_gone_when_it_is_committed_though_the_workflow_goes_on(run, store):
    with pytest.raises(WorkflowExecutionError):
        run.run(fail.bind(count.bind(3)), workflow_id="w")
    assert saved_keys(store) == []


def test_a_task_that_takes_its_failure_as_its_result_leaves_nothing(run, store):
    caught = count.options(**workflow.options(catch_exceptions=True))
    value, error = run.run(caught.bind(5, fails_at=3), workflow_id="w")
    assert value is None
    assert isinstance(error, OSError)
    assert saved_keys(store) == []


def test_the_creator_of_a_continuation_leaves_nothing(run, store):
    @ray.remote
    def create():
        workflow.get_context().save("on my way")
        return workflow.continuation(fail.bind())

    with pytest.raises(WorkflowExecutionError):
        run.run(create.bind(), workflow_id="w")
    assert saved_keys(store) == []


def test_what_a_task_without_a_checkpoint_saved_stays_until_the_workflow_has_ended(run, store):
    loose = count.options(**workflow.options(checkpoint=False))
    with pytest.raises(WorkflowExecutionError):
        run.run(fail.bind(loose.bind(3)), workflow_id="w")
    assert len(saved_keys(store)) == 1
    run.run(ignore.bind(loose.bind(3)), workflow_id="w")
    assert calls == [("begin", 0), 1, 2, 3, ("begin", 3)]
    assert saved_keys(store) == []


def test_a_restart_begins_without_the_state(run, store):
    with pytest.raises(WorkflowExecutionError):
        run.run(count.bind(5, fails_at=3), workflow_id="w")
    run.run(count.bind(3), workflow_id="w", on_existing="restart")
    assert calls[-4:] == [("begin", 0), 1, 2, 3]
    assert saved_keys(store) == []


def test_a_restart_from_the_task_begins_without_its_state(run):
    with pytest.raises(WorkflowExecutionError):
        run.run(count.bind(5, fails_at=3), workflow_id="w")
    assert run.resume("w", from_task="test_saving.count") == 5
    assert calls[4:] == [("begin", 0), 1, 2, 3, 4, 5]


def test_a_restart_from_a_task_begins_without_the_states_of_tasks_after_it(run):
    first = ignore.options(**workflow.options(task_id="first"))
    with pytest.raises(WorkflowExecutionError):
        run.run(count.bind(5, first.bind(), fails_at=3), workflow_id="w")
    assert run.resume("w", from_task="first") == 5
    assert calls[4:] == [("begin", 0), 1, 2, 3, 4, 5]


def test_a_restart_from_a_task_begins_without_the_states_of_its_continuation(run):
    @ray.remote
    def create():
        return workflow.continuation(count.bind(5, fails_at=3))

    with pytest.raises(WorkflowExecutionError):
        run.run(create.options(**workflow.options(task_id="create")).bind(), workflow_id="w")
    assert run.resume("w", from_task="create") == 5
    assert calls[4:] == [("begin", 0), 1, 2, 3, 4, 5]


def test_a_deleted_workflow_leaves_nothing(run, store):
    with pytest.raises(WorkflowExecutionError):
        run.run(count.bind(5, fails_at=3), workflow_id="w")
    files = WorkflowStore(store).list_files("w")
    assert [file.kind for file in files if file.key in saved_keys(store)] == ["saved"]
    run.delete("w")
    assert saved_keys(store) == []


def test_large_arrays_come_back_equal_and_may_be_changed(run, store):
    @ray.remote
    def train():
        context = workflow.get_context()
        if context.saved is None:
            context.save({"weights": np.arange(100_000.0), "epoch": 7})
            raise OSError("killed")
        state = context.saved
        state["weights"] += 1
        again = context.saved["weights"]
        return state["epoch"], float(state["weights"].sum() - again.sum())

    with pytest.raises(WorkflowExecutionError):
        run.run(train.bind(), workflow_id="w")
    assert run.resume("w") == (7, 100_000.0)


def test_a_state_that_cannot_be_stored_is_the_tasks_own_error(run, store):
    @ray.remote
    def save_lock():
        workflow.get_context().save(threading.Lock())

    with pytest.raises(WorkflowExecutionError, match="saved a lock that can't be stored"):
        run.run(save_lock.bind(), workflow_id="w")
    assert run.get_status("w") == "FAILED"
    assert saved_keys(store) == []


class Vanished:
    """A class that code has in one run and not in the next."""

    def __setstate__(self, state: object) -> None:
        if "vanished" in calls:
            raise AttributeError("there is no such class")


def test_a_state_that_cannot_be_unpickled_says_what_to_do(run):
    @ray.remote
    def load():
        context = workflow.get_context()
        if "vanished" not in calls:
            kept = Vanished()
            kept.__dict__["x"] = 1
            context.save(kept)
            calls.append("vanished")
        return context.saved

    with pytest.raises(WorkflowExecutionError, match=r"can't be unpickled.*restart the workflow"):
        run.run(load.bind(), workflow_id="w")


def test_a_storage_that_fails_leaves_the_workflow_resumable():
    inner = MemoryStore()

    class Full(FaultyStore):
        def put(self, key, data):
            if key.endswith(".state") and "full" not in calls:
                calls.append("full")
                self._at, self._how = self.writes, "error"
            super().put(key, data)

    with testing.in_process(Full(inner)) as workflows:
        with pytest.raises(WorkflowExecutionError, match="No space left"):
            workflows.run(count.bind(2), workflow_id="w")
        assert workflows.get_status("w") == "RESUMABLE"
        assert workflows.resume("w") == 2


@ray.remote
def leave_a_thread_behind():
    context = workflow.get_context()
    context.save(1)

    def save_later():
        effects.gate.wait()
        try:
            context.save(2)
        except RuntimeError as exc:
            calls.append(str(exc))

    threading.Thread(target=save_later, name="workflow task's own").start()


def test_a_thread_that_outlives_its_attempt_saves_nothing(run, store):
    run.run(leave_a_thread_behind.bind(), workflow_id="w")
    effects.gate.set()
    effects.join_tasks()
    assert "has ended" in calls[0]
    assert saved_keys(store) == []


def test_a_copy_of_the_context_in_another_process_has_the_ids_alone(run):
    @ray.remote
    def copy():
        context = workflow.get_context()
        copied = pickle.loads(pickle.dumps(context))
        with pytest.raises(RuntimeError, match="Only the process of the task itself"):
            copied.save(1)
        return copied == context

    assert run.run(copy.bind(), workflow_id="w") is True


def test_each_task_has_a_state_of_its_own(run):
    dag = ignore.bind(count.bind(2), count.options(**workflow.options(task_id="other")).bind(3))
    assert run.run(dag, workflow_id="w") == 2
    assert calls.count(("begin", 0)) == 2


# ---- the folder


@ray.remote
def write_files(until: int):
    """A file more in each version; fails once on its way."""
    folder = workflow.get_context().folder
    latest = folder.latest()
    numbers = sorted(int(file.name) for file in latest.iterdir()) if latest else []
    calls.append(("begin", list(numbers)))
    while len(numbers) < until:
        numbers.append(len(numbers))
        with folder.writing() as path:
            for number in numbers:
                (path / str(number)).write_text("x")
        if len(calls) == 1 and len(numbers) == 2:
            raise OSError("not yet")
    return len(numbers)


def test_a_resume_finds_the_files_of_the_latest_version(run, store):
    with pytest.raises(WorkflowExecutionError):
        run.run(write_files.bind(4), workflow_id="w")
    assert len(saved_keys(store)) == 2
    assert run.resume("w") == 4
    assert calls == [("begin", []), ("begin", [0, 1])]
    assert saved_keys(store) == []


def test_local_folders_are_gone_when_the_attempt_has_ended(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(WorkflowExecutionError):
        run.run(write_files.bind(4), workflow_id="w")
    run.resume("w")
    assert list(tmp_path.glob("rayworkflow-*")) == []


# ---- stopping gently


@ray.remote
def work_until_stopped(*, raises=True):
    """Save once, when this is to be stopped."""
    context = workflow.get_context()
    begun = context.saved or 0
    calls.append(("begin", begun))
    if begun == 2:
        return "done"
    wait_until(lambda: context.should_stop)
    context.save(begun + 1)
    calls.append("saved")
    if raises:
        raise InterruptedError
    return "done"


def patient(**options):
    return work_until_stopped.options(**workflow.options(stop_grace_s=60, **options))


def test_a_suspended_task_saves_and_a_resume_goes_on_with_that(run):
    workflow.run_async(patient().bind(), workflow_id="w")
    for number in range(2):
        wait_until(lambda number=number: calls.count(("begin", number)) == 1)
        workflow.suspend("w")
        assert workflow.get_status("w") == "RESUMABLE"
        assert calls[-1] == "saved"
        workflow.resume_async("w")
    assert workflow.get_output("w") == "done"


def test_a_canceled_task_is_told_and_the_cancel_waits_for_it(run):
    workflow.run_async(patient().bind(), workflow_id="w")
    wait_until(lambda: len(calls) == 1)
    workflow.cancel("w")
    assert calls == [("begin", 0), "saved"]
    assert workflow.get_status("w") == "CANCELED"


def test_a_task_that_returns_when_it_should_stop_is_committed(run):
    workflow.run_async(ignore.bind(patient().bind(raises=False)), workflow_id="w")
    wait_until(lambda: len(calls) == 1)
    workflow.suspend("w")
    assert workflow.get_output("w", task_id="test_saving.work_until_stopped") == "done"


def test_a_task_is_told_when_another_one_has_failed(run):
    @ray.remote
    def fail_later():
        wait_until(lambda: len(calls) == 1)
        raise OSError("broken")

    with pytest.raises(WorkflowExecutionError, match="broken"):
        run.run(ignore.bind(patient().bind(), fail_later.bind()), workflow_id="w")
    assert calls == [("begin", 0), "saved"]


def test_a_second_stop_does_not_wait_for_a_task_that_goes_on(run):
    @ray.remote
    def go_on():
        wait_until(lambda: workflow.get_context().should_stop)
        calls.append("told")
        effects.gate.wait()

    workflow.run_async(go_on.options(**workflow.options(stop_grace_s=3600)).bind(), workflow_id="w")
    wait_until(lambda: run.get_status("w") == "RUNNING")
    first = threading.Thread(target=workflow.suspend, args=("w",))
    first.start()
    wait_until(lambda: calls == ["told"])
    workflow.suspend("w")
    first.join()
    assert workflow.get_status("w") == "RESUMABLE"


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan")], ids=str)
def test_a_grace_that_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="stop_grace_s"):
        workflow.options(stop_grace_s=value)


# ---- silence


@pytest.mark.parametrize("beat", ["heartbeat", "save"])
def test_a_task_that_beats_goes_on_and_one_that_is_silent_is_tried_again(workflows, beat):
    @ray.remote
    def work():
        context = workflow.get_context()
        calls.append("begin")
        if calls.count("begin") == 1:
            effects.gate.wait()  # silent
        begun = time.monotonic()
        while time.monotonic() < begun + 4:
            time.sleep(0.1)
            if beat == "heartbeat":
                context.heartbeat()
            else:
                context.save(1)
        return "done"

    watched = work.options(
        **workflow.options(
            heartbeat_timeout_s=1, retry=workflow.Retry(attempts=2, wait_initial=0, on=TimeoutError)
        )
    )
    assert workflows.run(watched.bind(), workflow_id="w") == "done"
    assert calls == ["begin", "begin"]


def test_a_task_that_is_silent_fails_with_an_error_that_says_so(workflows):
    @ray.remote
    def be_silent():
        effects.gate.wait()

    watched = be_silent.options(**workflow.options(heartbeat_timeout_s=0.1))
    with pytest.raises(WorkflowExecutionError) as caught:
        workflows.run(watched.bind(), workflow_id="w")
    assert isinstance(caught.value.__cause__, workflow.WorkflowTaskTimeoutError)
    assert "silent for longer than its heartbeat_timeout_s of 0.1 s" in str(caught.value)
    assert caught.value.__cause__.is_silent
