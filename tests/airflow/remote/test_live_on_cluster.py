"""Retry, clear and kill, with Airflow's real processes against a real cluster.

What can go on beside each other does: all workflows are started at once, and each fixture then
does one thing to one of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import processes
import pytest
import ray
from browsers import Window, open_browser
from cluster import Cluster
from live_airflow import LiveAirflow, wait_for
from live_task import LiveTask
from playwright.sync_api import Locator, expect
from trace_collector import TraceCollector, attributes_of, trace_collector

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import fork
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest
from airflow_provider_rayworkflow.workflow.testing import in_process

HERE = Path(__file__).parent

pytestmark = [pytest.mark.live, pytest.mark.timeout(1_800)]

SYNC = ("killed", "failed", "success", "timeout", "over", "restart")
DEFERRED = ("fails", "cleared", "failed", "success", "restart", "timeout")


class Task(LiveTask):
    """The task of one DAG of ``dags/waiting.py``."""

    def __init__(self, live: LiveAirflow, witness: Path, dag_id: str) -> None:
        super().__init__(live, witness / dag_id, (dag_id, "r", "t"))

    def is_deferred(self, *, try_number: int = 1) -> None:
        self._live.wait_for_state(*self.of, "deferred", try_number=try_number)

    def ran(self) -> Counter[str]:
        path = self._folder / "ran"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def wait_until_at_gate(self, *, times: int = 1) -> None:
        wait_for("the gate", lambda: self.ran()["gate"] == times)

    def requests(self) -> list[StopRequest]:
        """Stop requests that no manager has dealt with."""
        return list(self.hook.mailbox.list_requests(self.workflow_id))


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live-witness")


@pytest.fixture(scope="module")
def collector(witness: Path) -> Iterator[TraceCollector]:
    with trace_collector() as collector:
        (witness / "collector").write_text(f"{collector.url}/v1/traces")
        yield collector


@pytest.fixture(scope="module")
def live(
    airflow_home: Path,
    connection: Callable[..., str],
    witness: Path,
    collector: TraceCollector,
    tmp_path_factory,
) -> Iterator[LiveAirflow]:
    with pytest.MonkeyPatch.context() as patch:
        for conn_id in ("LIVE", "RAY_WORKFLOW_DEFAULT"):
            patch.setenv(f"AIRFLOW_CONN_{conn_id}", connection())
        patch.setenv("AIRFLOW_CONN_LIVE_OTHER", _in_namespace(connection(), "other"))
        airflow = LiveAirflow(
            tmp_path_factory.mktemp("live"),
            {
                **_files(witness),
                "AIRFLOW__CORE__PARALLELISM": "6",
                # So that the next scheduler soon takes over from the one that was ended.
                "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
                "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
                **collector.environment,
            },
            has_triggerer=True,
        )
        with airflow.started(airflow_home / "airflow.db"):
            yield airflow


def _files(witness: Path) -> dict[str, str]:
    """Where a deployment's DAGs are, and what they find in their environment."""
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "WITNESS": str(witness),
        "SHIPPED": str(HERE / "shipped"),
    }


def _in_namespace(connection: str, namespace: str) -> str:
    fields = json.loads(connection)
    fields["extra"]["namespace"] = namespace
    return json.dumps(fields)


@pytest.fixture(scope="module")
def tasks(live: LiveAirflow, witness: Path) -> dict[str, Task]:
    """All of them, started."""
    tasks = {name: Task(live, witness, f"deferred_{name}") for name in DEFERRED}
    tasks["shown"] = Task(live, witness, "sync_shown")
    for task in tasks.values():
        task.trigger()
    return tasks


def test_an_automatic_retry_resumes(tasks: dict[str, Task]):
    task = tasks["fails"]
    task.is_deferred()
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == {"a": 1, "gate": 1, "fragile": 2}
    assert task.output() == ["a", "fragile"]
    assert 'raise RuntimeError("fragile fails once")' in task.log(try_number=1)


def test_what_the_tasks_print_while_deferred_is_in_the_log_once(tasks: dict[str, Task]):
    task = tasks["fails"]
    log = task.log(try_number=1)
    assert "waiting in the triggerer" in log
    lines = [line for line in log.splitlines() if "a says hello" in line]
    assert len(lines) == 1, lines


# ---- what a person does on the workflow's page, and what is traced of it


@pytest.fixture(scope="module")
def shown(tasks: dict[str, Task]) -> Task:
    """Its process waits for the workflow, a task of which waits at the gate."""
    tasks["shown"].wait_until_at_gate()
    return tasks["shown"]


@pytest.fixture(scope="module")
def window(live: LiveAirflow) -> Iterator[Window]:
    with open_browser() as browser, browser.new_context(locale="en-GB") as context:
        window = Window(context, live)
        yield window
        assert window.problems == []


def status_on(window: Window) -> Locator:
    return window.page.locator(".head .status")


def test_a_workflow_that_is_suspended_on_its_page_fails_the_task_instance_without_a_retry(
    shown: Task, window: Window
):
    page = window.open_workflow(shown.workflow_id, conn_id="live")
    page.locator(".node", has_text="first").click()
    expect(page.locator("#panel pre").first).to_contain_text('"first"')
    expect(page.locator("#panel")).to_contain_text("first <says> hello")
    assert window.confirm("Suspend").startswith("Suspending")
    expect(status_on(window)).to_have_text("RESUMABLE")
    assert shown.ends(try_number=1) == "failed"
    assert "RayWorkflowSuspendedError" in shown.log(try_number=1)


def test_a_workflow_that_is_resumed_on_its_page_ends_on_the_cluster(shown: Task, window: Window):
    shown.open_gate()
    shown.wait_until_clearable()
    window.open_workflow(shown.workflow_id, conn_id="live")
    assert window.confirm("Resume").startswith("The task instance is cleared")
    assert shown.ends(try_number=2) == "success"
    expect(status_on(window)).to_have_text("SUCCESSFUL")  # without a reload
    assert shown.ran() == {"first": 1, "gate": 2, "last": 1}
    assert shown.output() == [["first"], "last"]


def test_run_again_from_a_task_runs_it_and_what_depends_on_it_on_the_cluster(
    shown: Task, window: Window
):
    shown.wait_until_clearable()
    page = window.open_workflow(shown.workflow_id, conn_id="live")
    page.locator(".node", has_text="gate").click()
    assert window.confirm("Run again from here").startswith("The task instance is cleared")
    assert shown.ends(try_number=3) == "success"
    expect(status_on(window)).to_have_text("SUCCESSFUL")
    assert shown.ran() == {"first": 1, "gate": 3, "last": 2}


def test_a_workflow_that_no_task_instance_started_is_resumed_by_the_cluster(
    shown: Task, window: Window
):
    store = shown.hook.store
    fork.fork(store, shown.workflow_id, "a fork", from_task="last", now=time.time())
    window.open_workflow("a fork", conn_id="live")
    assert window.confirm("Resume").startswith("Resuming: the manager of the cluster")
    expect(status_on(window)).to_have_text("SUCCESSFUL", timeout=120_000)
    assert shown.ran() == {"first": 1, "gate": 3, "last": 3}


@pytest.mark.parametrize(
    ("try_number", "names"),
    [(1, {"first", "opened by first"}), (2, {"gate", "last", "opened by last"})],
)
@pytest.mark.usefixtures("window")
def test_tasks_are_spans_below_the_airflow_task_and_so_are_spans_that_they_open(
    shown: Task, collector: TraceCollector, try_number: int, names: set[str]
):
    """The try was suspended, the second one resumed: each has what it ran."""

    def of_try():
        for span in collector.spans("worker.t"):
            attributes = attributes_of(span)
            if (
                attributes["airflow.dag_id"] == shown.of[0]
                and attributes["airflow.task_instance.try_number"] == try_number
            ):
                return span
        return None

    parent = wait_for(f"the span of try {try_number}", of_try)
    below = [span for span in collector.spans() if span.parent_span_id == parent.span_id]
    assert {span.name for span in below} == names
    assert {span.trace_id for span in below} == {parent.trace_id}


def test_a_clear_while_deferred_lets_the_next_try_own_the_workflow(
    tasks: dict[str, Task], live: LiveAirflow
):
    """Its on_kill is "cancel", and the old trigger's stop request may come at any time."""
    task = tasks["cleared"]
    task.wait_until_at_gate()
    task.is_deferred()
    before = task.hook.mailbox.read_owner(task.workflow_id)
    live.clear(*task.of)
    task.is_deferred(try_number=2)
    after = task.hook.mailbox.read_owner(task.workflow_id)
    assert before.token != after.token
    wait_for("the old on_kill", lambda: "invoking on_kill" in task.log(try_number=1))
    wait_for("its stop request", lambda: not task.requests())
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    assert task.ran()["a"] == 1
    assert task.output() == ["a", "after"]


def test_links_are_right_while_the_task_is_deferred(
    tasks: dict[str, Task], live: LiveAirflow, cluster: Cluster
):
    task = tasks["failed"]
    task.is_deferred()
    assert live.links(*task.of) == {
        "Ray workflow": f"{live.url}/rayworkflow/workflow?conn_id=live"
        f"&workflow_id={task.workflow_id}",
        "Ray dashboard": f"{cluster.address}/#/actors",
    }


def test_marking_a_deferred_task_failed_suspends_and_a_clear_resumes(
    tasks: dict[str, Task], live: LiveAirflow
):
    task = tasks["failed"]
    task.wait_until_at_gate()
    task.is_deferred()
    token = task.hook.mailbox.read_owner(task.workflow_id).token
    live.mark(*task.of, "failed")
    found = task.wait_for_status(WorkflowStatus.RESUMABLE)
    assert (found.record.stopped_by, found.has_lost_owner) == (token, False)
    task.open_gate()
    task.clear()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == {"a": 1, "gate": 2, "after": 1}


def test_marking_a_deferred_task_successful_follows_on_kill(
    tasks: dict[str, Task], live: LiveAirflow
):
    task = tasks["success"]
    task.wait_until_at_gate()
    task.is_deferred()
    live.mark(*task.of, "success")
    assert task.wait_for_status(WorkflowStatus.CANCELED).record.stopped_by


def test_the_execution_timeout_counts_while_deferred_and_the_retry_resumes(tasks: dict[str, Task]):
    task = tasks["timeout"]
    assert task.ends(try_number=2) == "success"
    log = task.log(try_number=1)
    assert "waiting in the triggerer" in log
    assert "RayWorkflowTimeoutError" in log
    assert "The execution_timeout of 0:04:00 is over. Workflow" in log
    assert task.ran() == {"a": 1, "gate": 2, "after": 1}


def test_a_workflow_that_was_run_outside_airflow_starts_the_dag_of_an_example(
    live: LiveAirflow, root: Path
):
    @ray.remote
    def count():
        return {"fish": 4}

    live.unpause("ray_finished")
    live.read_dags()  # only then does Airflow start what watches for a DAG that is not paused
    wait_for("the watcher's first look", lambda: list((root / "v1" / "watchers").glob("*.json")))
    with in_process(str(root)) as workflows:
        workflows.run(count.bind(), workflow_id="words-1")
        workflows.run(count.bind(), workflow_id="other-1")
    [run_id] = wait_for("the DAG run", lambda: live.run_ids("ray_finished"))
    assert live.wait_for_end("ray_finished", run_id, "finished", try_number=1) == "success"
    assert live.xcom("ray_finished", run_id, "finished") == ["words-1"]


@pytest.fixture(scope="module")
def without_triggerer(tasks: dict[str, Task], live: LiveAirflow, witness: Path) -> dict[str, Task]:
    """Two deferred task instances whose triggerer ends."""
    forgotten = Task(live, witness, "deferred_forgotten")
    forgotten.trigger()
    of_these = {"restart": tasks["restart"], "forgotten": forgotten}
    for task in of_these.values():
        task.wait_until_at_gate()
        task.is_deferred()
    live.stop_one("triggerer")
    return of_these


def test_the_end_of_a_triggerer_leaves_the_workflow_running(without_triggerer: dict[str, Task]):
    task = without_triggerer["restart"]
    assert task.requests() == []
    assert task.hook.find(task.workflow_id).status is WorkflowStatus.RUNNING


# ---- tasks that wait in their own process: started now, as no test needs the triggerer


@pytest.fixture(scope="module")
def sync(without_triggerer: dict[str, Task], live: LiveAirflow, witness: Path) -> dict[str, Task]:
    tasks = {name: Task(live, witness, f"sync_{name}") for name in SYNC}
    for task in tasks.values():
        task.trigger()
    (witness / "items").write_text("x y")
    live.unpause("mapped")
    live.trigger("mapped", "r")
    return tasks


@pytest.fixture(scope="module")
def killed(sync: dict[str, Task], live: LiveAirflow) -> Task:
    """Its worker was shut down, and then its process killed, while the workflow ran."""
    task = sync["killed"]
    task.wait_until_at_gate()
    process = live.process(*task.of)
    processes.send(process, signal.SIGTERM)
    wait_for("on_kill", lambda: "Asked to stop" in task.log(try_number=1))
    processes.send(process, signal.SIGKILL)  # it may have ended by itself
    return task


def test_the_shutdown_of_a_worker_leaves_the_workflow_running(killed: Task):
    assert "the task instance is running: workflow is left alone" in killed.log(try_number=1)
    assert killed.hook.find(killed.workflow_id).status is WorkflowStatus.RUNNING


def test_after_a_killed_task_process_the_next_try_attaches(killed: Task):
    wait_for("the next try", lambda: "this try will attach" in killed.log(try_number=2))
    killed.open_gate()
    assert killed.ends(try_number=2) == "success"
    assert killed.ran() == {"a": 1, "gate": 1, "after": 1}
    assert killed.output() == ["a", "after"]


def test_a_clear_of_a_successful_task_instance_starts_over(killed: Task):
    killed.clear()
    assert killed.ends(try_number=3) == "success"
    assert killed.ran() == {"a": 2, "gate": 2, "after": 2}


def test_marking_a_running_task_failed_suspends(sync: dict[str, Task], live: LiveAirflow):
    task = sync["failed"]
    task.wait_until_at_gate()
    live.mark(*task.of, "failed")
    assert task.wait_for_status(WorkflowStatus.RESUMABLE).record.stopped_by
    assert "the task instance is failed: workflow is being suspended" in task.log(try_number=1)


def test_a_dag_run_made_again_with_the_same_run_id_starts_over(
    sync: dict[str, Task], live: LiveAirflow
):
    task = sync["failed"]
    live.wait_for_run(*task.of[:2])
    live.wait_until_reported(*task.of, try_number=1)
    live.delete_run(*task.of[:2])
    task.open_gate()
    task.trigger()
    assert task.ends(try_number=1) == "success"
    assert task.ran() == {"a": 2, "gate": 2, "after": 1}
    assert "of a deleted DAG run" in task.log(try_number=1)


def test_on_clear_resume_gives_the_stored_output_of_a_successful_one(sync: dict[str, Task]):
    """Of the run that was made again."""
    task = sync["failed"]
    task.clear()
    assert task.ends(try_number=2) == "success"
    assert task.output() == ["a", "after"]
    assert task.ran() == {"a": 2, "gate": 2, "after": 1}


def test_on_clear_restart_starts_over_also_after_a_failure(sync: dict[str, Task]):
    task = sync["over"]
    assert task.ends(try_number=1) == "failed"
    task.clear()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == {"a": 2, "fragile": 2}


def test_marking_a_running_task_successful_follows_on_kill(
    sync: dict[str, Task], live: LiveAirflow
):
    task = sync["success"]
    task.wait_until_at_gate()
    live.mark(*task.of, "success")
    assert task.wait_for_status(WorkflowStatus.CANCELED).record.stopped_by
    assert "the task instance is success: workflow is being canceled" in task.log(try_number=1)
    assert live.state(*task.of)[0] == "success"


def test_the_execution_timeout_suspends_and_the_retry_resumes(
    sync: dict[str, Task], live: LiveAirflow
):
    """The test sends the signal by which Airflow's clock ends a task: it does not wait for an hour."""
    task = sync["timeout"]
    task.wait_until_at_gate()
    os.kill(live.process(*task.of), signal.SIGALRM)
    task.wait_until_at_gate(times=2)  # the first run could end, too, until it is suspended
    task.open_gate()
    assert task.ends(try_number=2) == "success"
    assert "The execution_timeout of 1:00:00 is over. Workflow" in task.log(try_number=1)
    assert task.ran() == {"a": 1, "gate": 2, "after": 1}


def test_mapped_task_instances_never_take_each_others_workflow(
    sync: dict[str, Task], live: LiveAirflow, witness: Path
):
    """Their list changes its order before a clear, with which they would resume."""
    live.wait_for_run("mapped", "r")
    assert live.mapped_xcoms("mapped", "r", "t") == ["x", "y"]
    (witness / "items").write_text("y x")
    live.clear("mapped", "r", "items", "t")
    live.wait_for_run("mapped", "r")
    assert live.mapped_xcoms("mapped", "r", "t") == ["y", "x"]


def test_airflows_clock_ends_a_deferral_that_no_triggerer_ends(
    without_triggerer: dict[str, Task], live: LiveAirflow
):
    task = without_triggerer["forgotten"]
    assert task.ends(try_number=1) == "failed"
    assert "The time limit of the deferral (no triggerer has noticed" in task.log(try_number=1)
    found = task.wait_for_status(WorkflowStatus.RESUMABLE)
    assert found.record.stopped_by
    live.start_one("triggerer")
    task.open_gate()
    task.clear()
    assert task.ends(try_number=2) == "success"
    assert task.ran() == {"a": 1, "gate": 2, "after": 1}


def test_after_the_end_of_a_scheduler_the_tasks_find_their_workflows_again(
    sync: dict[str, Task], live: LiveAirflow
):
    """With the scheduler ends the process of the task that it runs."""
    task = sync["restart"]
    task.wait_until_at_gate()
    live.stop_one("scheduler")
    assert task.hook.find(task.workflow_id).status is WorkflowStatus.RUNNING
    # The one that was ended has not said so: until its heart beat is this old, it counts as alive.
    live.start_one("scheduler", AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD="60")
    wait_for(
        "the attaching",
        lambda: any("this try will attach" in task.log(try_number=number) for number in (1, 2)),
    )
    task.open_gate()
    live.wait_for_run(*task.of[:2])
    assert live.state(*task.of)[0] == "success"
    assert task.ran() == {"a": 1, "gate": 1, "after": 1}
    assert task.output() == ["a", "after"]


def test_the_next_triggerer_goes_on_waiting(without_triggerer: dict[str, Task]):
    task = without_triggerer["restart"]
    task.open_gate()
    assert task.ends(try_number=1) == "success"
    assert task.ran() == {"a": 1, "gate": 1, "after": 1}
    assert task.output() == ["a", "after"]
    assert "invoking on_kill" not in task.log(try_number=1)


# ---- another deployment: last, as it takes CPU time from the first one


@pytest.fixture
def second(
    airflow_home: Path, connection: Callable[..., str], tmp_path: Path
) -> Iterator[LiveAirflow]:
    """Another Airflow with the same DAGs, cluster and storage root, but a namespace of its own."""
    for folder in ("airflow", "witness"):
        (tmp_path / folder).mkdir()
    (tmp_path / "witness" / "items").write_text("p q")
    airflow = LiveAirflow(
        tmp_path / "airflow",
        {
            **_files(tmp_path / "witness"),
            "AIRFLOW_CONN_LIVE_OTHER": _in_namespace(connection(), "second"),
        },
    )
    with airflow.started(airflow_home / "airflow.db"):
        yield airflow


def test_a_namespace_keeps_two_deployments_on_one_storage_root_apart(
    sync: dict[str, Task], live: LiveAirflow, second: LiveAirflow
):
    """They have the same DAG, run and task ids."""
    hook = RayWorkflowHook("live")
    first_ids = live.mapped_xcoms("mapped", "r", "t", key="workflow_id")
    before = [hook.find(workflow_id) for workflow_id in first_ids]
    second.unpause("mapped")
    second.trigger("mapped", "r")
    second.wait_for_run("mapped", "r")
    assert second.mapped_xcoms("mapped", "r", "t") == ["p", "q"]
    second_ids = second.mapped_xcoms("mapped", "r", "t", key="workflow_id")
    assert [re.sub("~.*", "", workflow_id) for workflow_id in first_ids + second_ids] == [
        "other.mapped.t.r.0",
        "other.mapped.t.r.1",
        "second.mapped.t.r.0",
        "second.mapped.t.r.1",
    ]
    assert [hook.find(workflow_id) for workflow_id in first_ids] == before
    assert [found.record.output.value for found in before] == ["y", "x"]
