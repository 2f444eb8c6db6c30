"""A cluster that has no place for a workflow, where the try comes again, or refuses it."""

import queue
import time
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_provider_rayworkflow.clusters.remote import RemoteRay
from airflow_provider_rayworkflow.connection.jobs_api import Job
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowJobError,
    RayWorkflowQueueFullError,
)
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.task_instance import begun_at
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowChangedError
from airflow_provider_rayworkflow.workflow.runtime.service import job as driver
from airflow_provider_rayworkflow.workflow.storage import open_store
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Owner, Submission


class Store(dict):
    """Airflow's task state store."""

    def set(self, key: str, value: object, **_: object) -> None:
        self[key] = value


class TaskInstance:
    id = "this try"


class Full:
    """A try that finds no place."""

    workflow_id = "w"
    ends_with_process = False

    def __init__(self) -> None:
        self.is_closed = False

    def close(self, **_: object) -> None:
        self.is_closed = True


def see_through(context: dict, **changes: object) -> None:
    def begin() -> None:
        raise RayWorkflowQueueFullError("w")

    task = RayWorkflowRunOperator(task_id="t", workflow="m:f", **changes)
    run = Full()
    try:
        task._see_through(run, begin, context, task._deadline(context))
    finally:
        assert run.is_closed


@pytest.fixture
def context() -> dict:
    return {"ti": TaskInstance(), "task_state_store": Store()}


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_try_comes_again(context: dict, deferrable: bool):
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        see_through(context, deferrable=deferrable)
    assert 20 < rescheduled.value.reschedule_date.timestamp() - time.time() <= 30


def test_the_execution_timeout_goes_on_over_the_parts_of_the_try(context: dict):
    with pytest.raises(AirflowRescheduleException):
        see_through(context, execution_timeout=timedelta(hours=1))
    begun = begun_at(context)
    assert begun_at(context) == begun, "it is remembered"
    context["task_state_store"]["ray_workflow_begun"]["at"] -= 3601
    with pytest.raises(RayWorkflowQueueFullError):
        see_through(context, execution_timeout=timedelta(hours=1))


def test_another_try_has_its_own_time(context: dict):
    with pytest.raises(AirflowRescheduleException):
        see_through(context)
    context["task_state_store"]["ray_workflow_begun"]["at"] = 1.0
    context["ti"].id = "the next try"
    assert begun_at(context) > 1.0


def test_on_queue_full_fail_fails_the_try(context: dict):
    with pytest.raises(RayWorkflowQueueFullError, match="max_pending_workflows"):
        see_through(context, on_queue_full="fail")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"on_queue_full": "retry"}, "on_queue_full must be one of"),
        ({"max_running_workflows": 0}, "'max_running_workflows' must be"),
        ({"max_pending_workflows": -2}, "'max_pending_workflows' must be"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_read(arguments: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        RayWorkflowRunOperator(task_id="t", workflow="m:f", **arguments)


@pytest.mark.parametrize(
    ("exit_code", "error"),
    [(75, RayWorkflowQueueFullError), (65, RayWorkflowInputError), (1, RayWorkflowJobError)],
)
def test_the_jobs_exit_code_tells_a_full_queue_and_a_refusal_from_other_ends(
    exit_code: int, error, monkeypatch
):
    engine = RemoteRay(
        hook=None,
        cluster=Cluster(address="http://127.0.0.1:9"),
        spec=RunSpec(
            workflow_id="w",
            definition=WorkflowDefinition(name="m:f", function=None, arguments={}),
        ),
        token="t",
        backoff=Backoff(0),
    )
    ended = Job(submission_id="s", status="FAILED", message="", exit_code=exit_code)
    monkeypatch.setattr(engine._jobs, "find", lambda _: ended)
    monkeypatch.setattr(engine, "_find", lambda: None)
    with pytest.raises(error):
        engine.has_begun(None)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (queue.Full("Workflow queue has been full"), 75),
        (WorkflowChangedError("w", ["load: its code has changed"]), 65),
        (ValueError("Workflow 'w' has no task 'tidy' to restart from."), 65),
    ],
    ids=["no place", "changed", "no task"],
)
def test_a_job_that_is_not_taken_leaves_no_arguments_behind(
    tmp_path: Path, monkeypatch, capfd, error: Exception, exit_code: int
):
    mailbox = Mailbox(open_store(str(tmp_path)))
    submission = Submission(
        workflow_id="w",
        submission_id="s",
        token="t",
        workflow="os.path:join",
        arguments={"a": "secret"},
        user_metadata={},
        on_existing="resume",
        submitted_at=0.0,
        python="3.11",
        package_version="0",
    )
    mailbox.write_submission(submission)
    mailbox.take_over(Owner(workflow_id="w", token="t", submission_id="s", since=0.0))

    class Manager:
        class submit:
            @staticmethod
            def remote(*_: object) -> str:
                return "full"

    def call(_: object) -> None:
        raise error

    monkeypatch.setattr(driver, "join_manager", lambda *_, **__: Manager)
    monkeypatch.setattr(driver, "build_graph", lambda _: b"")
    monkeypatch.setattr(driver.connect, "call", call)
    arguments = ["--storage", str(tmp_path), "--workflow-id", "w", "--submission-id", "s"]
    assert driver.main(arguments) == exit_code
    assert str(error) in "".join(capfd.readouterr())
    assert list(tmp_path.glob("v1/submissions/w/*")) == []
