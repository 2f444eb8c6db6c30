"""Retry, clear and kill, with Airflow's real processes: what happens, and what must follow."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import connection
from live_airflow import LiveAirflow, wait_for

from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.live,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
]

OUTPUT = ["z", ["gate", ["a"]]]


@pytest.fixture(scope="module")
def witness(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("witness")


@pytest.fixture(autouse=True, scope="module")
def _connection(witness: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LIVE", connection(storage=str(witness / "storage")))
        yield


@pytest.fixture(scope="module")
def live(airflow_home: Path, witness: Path, tmp_path_factory) -> Iterator[LiveAirflow]:
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("live"),
        {"WITNESS": str(witness)},
    )
    try:
        airflow.start(airflow_home / "airflow.db")
        yield airflow
    finally:
        airflow.stop()


class Task:
    """The task of one DAG of ``dags/live.py`` in one run, and the traces of its workflow."""

    def __init__(self, live: LiveAirflow, witness: Path, on_clear: str) -> None:
        self.of = (f"live_{on_clear}", "r", "gated")
        self._live = live
        self._folder = witness / on_clear
        self._hook = RayWorkflowHook("live")

    def trigger(self) -> None:
        self._live.unpause(self.of[0])
        self._live.trigger(*self.of[:2])

    def clear(self) -> None:
        """Clear the task instance after its end."""
        # Airflow's scheduler, about to end the run, would miss what is cleared just then.
        self._live.wait_for_run(*self.of[:2])
        self._live.clear(*self.of)

    def delete_run(self) -> None:
        self._live.wait_for_run(*self.of[:2])
        self._live.delete_run(*self.of[:2])

    def ends(self, *, try_number: int) -> str:
        return self._live.wait_for_end(*self.of, try_number=try_number)

    def output(self) -> object:
        return self._live.xcom(*self.of)

    def log(self, *, try_number: int) -> str:
        return self._live.log(*self.of, try_number=try_number)

    def ran(self) -> list[str]:
        """The workflow's tasks in the order in which they began."""
        path = self._folder / "ran"
        return path.read_text().split() if path.exists() else []

    def wait_until_ran(self, *tasks: str) -> None:
        wait_for(f"the tasks {tasks}", lambda: self.ran() == list(tasks))

    def wait_for_status(self, status: WorkflowStatus) -> StoredWorkflow:
        def look() -> StoredWorkflow | None:
            found = self._find()
            return found if found and found.status is status else None

        return wait_for(f"the status {status}", look)

    @property
    def process(self) -> int:
        """The process of the Airflow task, which leads a process group."""
        return int((self._folder / "task_process").read_text())

    def open_gate(self) -> None:
        (self._folder / "open").touch()

    def close_gate(self) -> None:
        (self._folder / "open").unlink()

    def _find(self) -> StoredWorkflow | None:
        dag_id, run_id, task_id = self.of
        return self._hook.find(f"{dag_id}.{task_id}.{run_id}")


@pytest.fixture(scope="module")
def killed(live: LiveAirflow, witness: Path) -> Task:
    """A task instance that was killed in the middle of a workflow task, and was retried."""
    task = Task(live, witness, "auto")
    task.trigger()
    task.wait_until_ran("a", "gate")
    os.kill(task.process, signal.SIGKILL)
    task.wait_for_status(WorkflowStatus.RESUMABLE)
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    return task


def test_a_task_process_killed_in_the_middle_is_resumed_by_the_next_try(killed: Task):
    assert killed.ran() == ["a", "gate", "gate", "z"]
    assert killed.output() == OUTPUT
    found = killed.wait_for_status(WorkflowStatus.SUCCESSFUL)
    assert (found.record.tasks_total, found.record.tasks_reused) == (3, 1)


@pytest.fixture(scope="module")
def cleared(killed: Task) -> Task:
    """The same, cleared by a person after its success."""
    killed.clear()
    assert killed.ends(try_number=3) == "success"
    return killed


def test_a_clear_of_a_successful_task_instance_starts_over(cleared: Task):
    assert cleared.ran()[4:] == ["a", "gate", "z"]
    assert cleared.output() == OUTPUT


@pytest.fixture(scope="module")
def made_again(cleared: Task) -> Task:
    """The same in a DAG run that was deleted and made again, sent a SIGTERM while it ran."""
    cleared.delete_run()
    cleared.close_gate()
    cleared.trigger()
    cleared.wait_until_ran("a", "gate", "gate", "z", "a", "gate", "z", "a", "gate")
    os.killpg(cleared.process, signal.SIGTERM)  # as Airflow does it
    wait_for("on_kill", lambda: "Asked to stop" in cleared.log(try_number=1))
    cleared.open_gate()
    assert cleared.ends(try_number=1) == "success"
    return cleared


def test_a_dag_run_made_again_with_the_same_run_id_starts_over(made_again: Task):
    assert made_again.ran()[7:] == ["a", "gate", "z"]
    assert "of a deleted DAG run" in made_again.log(try_number=1)


def test_the_shutdown_of_a_worker_leaves_the_workflow_running(made_again: Task):
    """A SIGTERM while the task instance is running for Airflow: the same try goes on to its end."""
    assert "the task instance is running: workflow is left alone" in made_again.log(try_number=1)
    assert made_again.output() == OUTPUT


@pytest.fixture(scope="module")
def marked_failed(live: LiveAirflow, witness: Path) -> Task:
    """A task instance that a person marked as failed while it ran."""
    task = Task(live, witness, "resume")
    task.trigger()
    task.wait_until_ran("a", "gate")
    live.mark(*task.of, "failed")
    found = task.wait_for_status(WorkflowStatus.RESUMABLE)
    assert not found.has_lost_owner, "not suspended: it died with its process"
    return task


def test_marking_a_running_task_instance_failed_suspends_its_workflow(marked_failed: Task):
    assert marked_failed.ends(try_number=1) == "failed"
    assert "the task instance is failed: workflow is being suspended" in marked_failed.log(
        try_number=1
    )


@pytest.fixture(scope="module")
def cleared_after_failure(marked_failed: Task) -> Task:
    marked_failed.open_gate()
    marked_failed.clear()
    assert marked_failed.ends(try_number=2) == "success"
    return marked_failed


def test_a_clear_of_a_failed_task_instance_resumes(cleared_after_failure: Task):
    assert cleared_after_failure.ran() == ["a", "gate", "gate", "z"]
    assert cleared_after_failure.output() == OUTPUT


def test_on_clear_resume_gives_the_stored_output_of_a_successful_one(cleared_after_failure: Task):
    task = cleared_after_failure
    task.clear()
    assert task.ends(try_number=3) == "success"
    assert task.ran() == ["a", "gate", "gate", "z"]
    assert task.output() == OUTPUT


def test_on_clear_restart_starts_over_also_while_it_runs(live: LiveAirflow, witness: Path):
    """A clear of a running one suspends it; the next try drops what it had committed."""
    task = Task(live, witness, "restart")
    task.trigger()
    task.wait_until_ran("a", "gate")
    live.clear(*task.of)
    wait_for("on_kill", lambda: "the task instance is restarting" in task.log(try_number=1))
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == ["a", "gate", "a", "gate", "z"]
    assert task.output() == OUTPUT
