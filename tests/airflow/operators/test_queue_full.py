"""A cluster that has no place for a workflow, where the try comes again, or refuses it."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException
from dag_test import connection

from airflow_provider_rayworkflow.clusters.engine import RayEngine
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowQueueFullError,
    RayWorkflowStartError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.task_instance import begun_at
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.storage.mailbox import SubmissionAnswer


class Store(dict):
    """Airflow's task state store."""

    def set(self, key: str, value: object, **_: object) -> None:
        self[key] = value


class TaskInstance:
    id = "this try"


class Full:
    """A try that finds no place."""

    workflow_id = "w"

    def __init__(self) -> None:
        self.is_closed = False

    def close(self, **_: object) -> None:
        self.is_closed = True


class Host:
    """A cluster whose manager is up."""

    def ensure(self) -> str:
        return "the cluster"

    def close(self) -> None:
        pass


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
    ("outcome", "error"),
    [
        ("queue full", RayWorkflowQueueFullError),
        ("refused", RayWorkflowInputError),
        ("failed", RayWorkflowStartError),
    ],
)
def test_the_managers_answer_tells_a_full_queue_and_a_refusal_from_other_failures(
    outcome: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    hook = RayWorkflowHook()
    engine = RayEngine(hook, RunSpec(workflow_id="w"), Host(), token="t", backoff=Backoff(0))
    engine.submit(StartOptions())
    assert not engine.has_begun()
    (key,) = hook.mailbox.list_submissions()
    submission = hook.mailbox.read_submission(key)
    assert submission.cluster == "the cluster"
    answer = SubmissionAnswer(
        workflow_id="w",
        submission_id=submission.submission_id,
        outcome=outcome,
        message="for a reason",
        answered_at=1.0,
    )
    hook.mailbox.write_answer(answer)
    with pytest.raises(error):
        engine.has_begun()
    assert not hook.mailbox.list_submissions()
    assert hook.mailbox.read_answer("w", submission.submission_id) is None
