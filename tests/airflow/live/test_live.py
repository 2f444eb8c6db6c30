"""Retry, clear, kill and deferral on the local Ray, with Airflow's real processes: what must follow."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import connection
from live_airflow import LiveAirflow, wait_for
from live_task import LiveTask

from airflow_provider_rayworkflow.workflow.local_ray.overview import list_local_rays
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.live,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
]

OUTPUT = ["z", ["gate", ["a"]]]

#: Their workflows run at the same time.
LOST = ("lost_1", "lost_2", "lost_deferred")


@pytest.fixture(scope="module")
def witness(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("witness")


@pytest.fixture(autouse=True, scope="module")
def _connection(witness: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        storage = str(witness / "storage")
        patch.setenv("AIRFLOW_CONN_LIVE", connection(storage=storage, num_cpus=len(LOST)))
        yield


@pytest.fixture(scope="module")
def live(airflow_home: Path, witness: Path, tmp_path_factory) -> Iterator[LiveAirflow]:
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("live"), {"WITNESS": str(witness)}, has_triggerer=True
    )
    with airflow.started(airflow_home / "airflow.db"):
        yield airflow


class Task(LiveTask):
    """The task of one DAG of ``dags/live.py``."""

    def __init__(self, live: LiveAirflow, witness: Path, name: str) -> None:
        super().__init__(live, witness / name, (f"live_{name}", "r", "gated"))

    def delete_run(self) -> None:
        self.wait_until_clearable()
        self._live.delete_run(*self.of[:2])

    def ran(self) -> list[str]:
        """The workflow's tasks in the order in which they began."""
        path = self._folder / "ran"
        return path.read_text().split() if path.exists() else []

    def wait_until_ran(self, *tasks: str) -> None:
        wait_for(f"the tasks {tasks}", lambda: self.ran() == list(tasks))

    @property
    def process(self) -> int:
        """The process of the Airflow task that submitted the workflow; it leads a process group."""
        return int((self._folder / "task_process").read_text())

    def close_gate(self) -> None:
        (self._folder / "open").unlink()


@pytest.fixture(scope="module")
def killed(live: LiveAirflow, witness: Path) -> Task:
    """A task instance whose process was killed in the middle of a workflow task, and was retried."""
    task = Task(live, witness, "auto")
    task.trigger()
    task.wait_until_ran("a", "gate")
    os.kill(task.process, signal.SIGKILL)
    wait_for("the next try", lambda: "this try will attach" in task.log(try_number=2))
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    return task


@pytest.mark.invariant(6)
def test_after_a_killed_task_process_the_workflow_goes_on_and_the_next_try_attaches(killed: Task):
    assert killed.ran() == ["a", "gate", "z"]
    assert killed.output() == OUTPUT
    record = killed.wait_for_status(WorkflowStatus.SUCCESSFUL).record
    assert (record.epoch, record.tasks_total, record.tasks_reused) == (1, 3, 0)


def test_what_the_workflows_tasks_print_is_in_the_log_at_its_level(killed: Task):
    """A try that was killed could not remember what it had shown: the next one shows that again."""
    first, second = (killed.log(try_number=number).splitlines() for number in (1, 2))
    watched = [line for line in (*first, *second) if "the gate is watched" in line]
    assert len(watched) in (1, 2)
    for line in watched:
        assert "[counted.gate] the gate is watched" in line
        assert '"level":"info"' in line
    assert [line for line in second if '"level":"error"' in line] == []


@pytest.fixture(scope="module")
def cleared(killed: Task) -> Task:
    """The same, cleared by a person after its success."""
    killed.clear()
    assert killed.ends(try_number=3) == "success"
    return killed


def test_a_clear_of_a_successful_task_instance_starts_over(cleared: Task):
    assert cleared.ran()[3:] == ["a", "gate", "z"]
    assert cleared.output() == OUTPUT


@pytest.fixture(scope="module")
def made_again(cleared: Task) -> Task:
    """The same in a DAG run that was deleted and made again, sent a SIGTERM while it ran."""
    cleared.delete_run()
    cleared.close_gate()
    cleared.trigger()
    cleared.wait_until_ran("a", "gate", "z", "a", "gate", "z", "a", "gate")
    os.killpg(cleared.process, signal.SIGTERM)  # as Airflow does it
    wait_for("on_kill", lambda: "Asked to stop" in cleared.log(try_number=1))
    cleared.open_gate()
    assert cleared.ends(try_number=1) == "success"
    return cleared


def test_a_dag_run_made_again_with_the_same_run_id_starts_over(made_again: Task):
    assert made_again.ran()[6:] == ["a", "gate", "z"]
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
    assert found.record.stopped_by, "not suspended: it has lost its manager"
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
    task.wait_until_ran("a", "gate", "a", "gate")  # a gate that is opened sooner ends the first run
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == ["a", "gate", "a", "gate", "z"]
    assert task.output() == OUTPUT


def test_a_deferrable_task_without_a_cluster_waits_in_the_triggerer(
    live: LiveAirflow, witness: Path
):
    task = Task(live, witness, "deferred")
    task.trigger()
    live.wait_for_state(*task.of, "deferred", try_number=1)
    wait_for("what the gate prints", lambda: "the gate is watched" in task.log(try_number=1))
    assert task.ran() == ["a", "gate"]
    task.open_gate()
    assert task.ends(try_number=1) == "success"
    assert task.ran() == ["a", "gate", "z"]
    assert task.output() == OUTPUT
    log = task.log(try_number=1)
    assert "waiting in the triggerer" in log
    assert log.count("the gate is watched") == 1


def test_a_task_that_does_not_wait_leaves_its_workflow_to_the_local_ray(
    live: LiveAirflow, witness: Path
):
    task = Task(live, witness, "without_wait")
    task.trigger()
    assert task.ends(try_number=1) == "success"
    assert task.output() == "live_without_wait.gated.r"
    task.wait_until_ran("a", "gate")
    task.open_gate()
    found = task.wait_for_status(WorkflowStatus.SUCCESSFUL)
    assert found.record.output.value == OUTPUT
    assert task.ran() == ["a", "gate", "z"]


def test_a_killed_local_ray_is_replaced_once_and_its_workflows_go_on_in_the_same_tries(
    live: LiveAirflow, witness: Path
):
    tasks = [Task(live, witness, name) for name in LOST]
    for task in tasks:
        task.trigger()
    for task in tasks:
        task.wait_until_ran("a", "gate")
    live.wait_for_state("live_lost_deferred", "r", "gated", "deferred", try_number=1)
    (before,) = list_local_rays(live.local_ray_root)
    os.kill(before.state.process.pid, signal.SIGKILL)
    for task in tasks:
        task.wait_until_ran("a", "gate", "gate")
    (after,) = list_local_rays(live.local_ray_root)
    assert after.state.keeper_id != before.state.keeper_id
    for task in tasks:
        task.open_gate()
    for task in tasks:
        live.wait_for_run(*task.of[:2])
        assert live.state(*task.of) == ("success", 1)
        assert task.ran() == ["a", "gate", "gate", "z"]
        assert task.output() == OUTPUT
        assert "has lost its owner: resuming it" in task.log(try_number=1)
