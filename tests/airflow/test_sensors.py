"""A sensor waits for any workflow, or one of its tasks, and says so when that can't come."""

import asyncio
import json
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from dag_test import connection
from sample_records import status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowEndedError,
    RayWorkflowInputError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.sensors import RayWorkflowSensor
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.offline.finished import FinishedTasks
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.testing import in_process


class TaskInstance:
    """As far as Airflow's own part of a sensor asks."""

    def __init__(self) -> None:
        self.xcoms: dict[str, object] = {}

    def get_first_reschedule_date(self, context: object) -> None:
        return None

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = value


CONTEXT = {"task_reschedule_count": 0, "ti": TaskInstance()}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "storage"
    monkeypatch.setenv("AIRFLOW_CONN_WAITED", connection(storage=str(root)))
    return root


def write(root: Path, status: Status, *, number: int = 0, **changes: object) -> None:
    WorkflowStore(open_store(str(root))).write_status(
        status_record(status, number=number, manager_id="gone", **changes)
    )


class HastySensor(RayWorkflowSensor):
    """What is not there yet it does not wait for before the deferral."""

    stay_s = 0.0


def sensor(**changes: object) -> RayWorkflowSensor:
    given = {"task_id": "s", "workflow_id": "w", "ray_workflow_conn_id": "waited"}
    return HastySensor(**given | changes)


def wait_in_triggerer(waiting: RayWorkflowSensor, deferred: TaskDeferred) -> object:
    """What Airflow does with a deferral: trigger, event, and the next part of the task."""

    async def run() -> dict:
        (event,) = [event.payload async for event in deferred.trigger.run()]
        return event

    event = json.loads(json.dumps(asyncio.run(run())))
    return waiting.resume_execution(deferred.method_name, {"event": event}, CONTEXT)


def test_the_status_that_is_waited_for_ends_the_wait(root: Path):
    write(root, Status.SUCCESSFUL)
    assert sensor().execute(CONTEXT) == "SUCCESSFUL"
    assert sensor(deferrable=True).execute(CONTEXT) == "SUCCESSFUL"
    assert CONTEXT["ti"].xcoms == {
        "_link_RayWorkflowLink": "/rayworkflow/workflow?conn_id=waited&workflow_id=w"
    }


@pytest.mark.parametrize("status", [None, Status.RUNNING, Status.RESUMABLE])
def test_a_sensor_waits_for_a_status_that_may_still_come(root: Path, status: Status | None):
    if status:
        write(root, status)
    assert not sensor().poke(CONTEXT).is_done
    with pytest.raises(AirflowRescheduleException):
        sensor(mode="reschedule").execute(CONTEXT)
    with pytest.raises(TaskDeferred):
        sensor(deferrable=True).execute(CONTEXT)


@pytest.mark.invariant(4)
def test_a_failure_fails_the_sensor_with_its_reason(root: Path):
    failure = TaskFailure(task_id="t", type="ValueError", message="bad", traceback="")
    write(root, Status.FAILED, failure=failure)
    reason = r"'w' is FAILED \(task 't': ValueError: bad\), and the sensor waits until it is SUCC"
    for deferrable in (False, True):
        with pytest.raises(RayWorkflowEndedError, match=reason):
            sensor(deferrable=deferrable).execute(CONTEXT)


@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.CANCELED])
def test_a_final_status_always_ends_the_wait(root: Path, status: Status):
    write(root, status)
    with pytest.raises(RayWorkflowEndedError, match="until it is FAILED or RESUMABLE"):
        sensor(statuses=["FAILED", "RESUMABLE"], failed_statuses=[]).execute(CONTEXT)


def test_a_failure_can_be_waited_for_or_borne_with(root: Path):
    write(root, Status.FAILED)
    assert sensor(statuses=["FAILED"]).execute(CONTEXT) == "FAILED"
    assert not sensor(failed_statuses=[]).poke(CONTEXT).is_done


def test_a_soft_fail_skips(root: Path):
    write(root, Status.CANCELED)
    with pytest.raises(AirflowSkipException):
        sensor(soft_fail=True).execute(CONTEXT)


def test_a_deferred_sensor_goes_on_when_its_trigger_fires(root: Path):
    waiting = sensor(deferrable=True, poke_interval=0.01)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(CONTEXT)
    assert deferred.value.trigger.token == "", "a sensor owns nothing"
    write(root, Status.SUCCESSFUL)
    assert wait_in_triggerer(waiting, deferred.value) == "SUCCESSFUL"


def test_a_deferred_sensor_waits_again_if_the_status_has_gone(root: Path):
    write(root, Status.RUNNING)
    waiting = sensor(statuses=["RESUMABLE"], deferrable=True)
    event = {
        "reason": "status",
        "workflow_id": "w",
        "status": "RESUMABLE",
        "error": "",
        "carried": {"deadline": time.time() + 60, "clock": "x"},
    }
    (root / "v1").rename(root / "away")
    with pytest.raises(TaskDeferred):
        waiting.execute_complete(CONTEXT, event)


@pytest.mark.parametrize(
    ("times", "error", "clock"),
    [
        ({"timeout": 0.0}, AirflowSensorTimeout, "The timeout of the sensor, 0 s, is over"),
        (
            {"execution_timeout": timedelta(0)},
            AirflowTaskTimeout,
            "The execution_timeout is over, and workflow 'w' is NONE",
        ),
    ],
)
def test_a_deferred_sensor_says_which_clock_ended_it(root: Path, times, error, clock: str):
    waiting = sensor(deferrable=True, **times)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(CONTEXT)
    with pytest.raises(error, match=clock):
        wait_in_triggerer(waiting, deferred.value)


def test_a_storage_that_can_not_be_read_fails_the_sensor_after_its_time(root: Path):
    (root / "v1" / "status" / "w").mkdir(parents=True)
    (root / "v1" / "status" / "w" / "00000001-0000-FAILED-m.json").write_text("{")
    with pytest.raises(RayWorkflowStorageError, match="its first line"):
        sensor(unreachable_timeout_s=0).execute(CONTEXT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"statuses": ["DONE"]}, r"statuses must be a list of .* not \['DONE'\]"),
        ({"statuses": "FAILED"}, "statuses must be a list"),
        ({"failed_statuses": ["NONE"]}, "failed_statuses must be"),
        ({"statuses": ["FAILED"], "workflow_task_id": "t"}, "not for both"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_read(changes: dict, reason: str):
    with pytest.raises(RayWorkflowInputError, match=reason):
        sensor(**changes)


def test_an_id_that_names_no_workflow_is_refused(root: Path):
    with pytest.raises(RayWorkflowInputError):
        sensor(workflow_id="../x").execute(CONTEXT)


# ---- one task of a workflow


@ray.remote
def one():
    return 1


@ray.remote
def more(number, fails):
    if fails:
        raise ValueError("no more")
    return workflow.continuation(one.options(**workflow.options(task_id="last")).bind())


def run(root: Path, *, fails: bool) -> None:
    first = one.options(**workflow.options(task_id="first")).bind()
    second = more.options(**workflow.options(task_id="second")).bind(first, fails)
    with in_process(str(root)) as workflows, suppress(WorkflowExecutionError):
        workflows.run(second, workflow_id="w")


@pytest.mark.parametrize("task_id", ["first", "second", "last"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_that_has_finished_ends_the_wait(root: Path, task_id: str, deferrable: bool):
    run(root, fails=False)
    waiting = sensor(workflow_task_id=task_id, deferrable=deferrable)
    assert waiting.execute(CONTEXT) == "SUCCESSFUL"


def test_a_task_counts_though_the_workflow_has_failed(root: Path):
    run(root, fails=True)
    assert sensor(workflow_task_id="first").execute(CONTEXT) == "FAILED"
    with pytest.raises(RayWorkflowEndedError, match="until its task 'second' has finished"):
        sensor(workflow_task_id="second").execute(CONTEXT)


def test_a_task_that_the_workflow_does_not_have_ends_with_it(root: Path):
    run(root, fails=False)
    with pytest.raises(RayWorkflowEndedError, match="'w' is SUCCESSFUL, and the sensor waits"):
        sensor(workflow_task_id="other").execute(CONTEXT)


def test_a_deferred_sensor_notices_the_end_of_a_task_while_the_workflow_goes_on(root: Path):
    waiting = sensor(workflow_task_id="first", deferrable=True, poke_interval=0.01)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(CONTEXT)
    run(root, fails=True)
    assert wait_in_triggerer(waiting, deferred.value) == "FAILED"


class CountingStore(WorkflowStore):
    """Counts how often the checkpoints are read."""

    reads = 0

    def read_checkpoints(self, *given: Any, **more: Any) -> Any:
        self.reads += 1
        return super().read_checkpoints(*given, **more)


def test_the_checkpoints_are_read_again_only_when_there_are_more(root: Path):
    run(root, fails=False)
    store = CountingStore(open_store(str(root)))
    tasks = FinishedTasks(store, "w")
    assert tasks.has("first", epoch=1, status=Status.SUCCESSFUL)
    assert store.reads == 1
    assert tasks.has("second", epoch=1, status=Status.SUCCESSFUL)
    assert not tasks.has("other", epoch=1, status=Status.SUCCESSFUL)
    assert store.reads == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("asked", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_a_sensor_that_may_fail_softly_skips_where_nothing_is_left_to_wait_for(
    root: Path, status: Status, asked: str, deferrable: bool
):
    write(root, status)
    with pytest.raises(AirflowSkipException, match=asked):
        sensor(deferrable=deferrable, **{asked: True}).execute(CONTEXT)


def resumed(waiting: RayWorkflowSensor, reason: str, clock: str = "The timeout") -> object:
    """The second half of a deferral whose trigger has fired."""
    waiting.deferrable = True
    event = {"reason": reason, "workflow_id": "w", "status": "RUNNING", "error": "It is down."}
    event["carried"] = {"deadline": time.time() + 60, "clock": clock}
    return waiting.resume_execution("execute_complete", {"event": event}, CONTEXT)


@pytest.mark.parametrize("asked", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("clock", ["The timeout of the sensor, 1 s,", "The execution_timeout"])
def test_a_deferred_sensor_that_may_fail_softly_skips_when_its_time_is_over(
    root: Path, asked: str, clock: str
):
    with pytest.raises(AirflowSkipException):
        resumed(sensor(**{asked: True}), "deadline", clock)


def test_a_deferred_sensor_that_never_fails_skips_after_every_error(root: Path):
    waiting = sensor(never_fail=True)
    with pytest.raises(AirflowSkipException, match="It is down"):
        resumed(waiting, "unreachable")
    waiting.ray_workflow_conn_id = "no_such_connection"
    for half in (lambda: resumed(waiting, "status"), lambda: waiting.execute(CONTEXT)):
        with pytest.raises(AirflowSkipException):
            half()


def test_a_soft_fail_does_not_hide_an_outage_as_in_poke_mode(root: Path):
    with pytest.raises(RayWorkflowStorageError):
        resumed(sensor(soft_fail=True), "unreachable")


def test_a_deferred_sensor_with_silent_fail_waits_on_after_an_outage(root: Path):
    waiting = sensor(silent_fail=True)
    with pytest.raises(TaskDeferred):
        resumed(waiting, "unreachable")
    waiting.ray_workflow_conn_id = "no_such_connection"
    with pytest.raises(TaskDeferred):
        waiting.execute(CONTEXT)
    waiting.ray_workflow_conn_id = "waited"
    write(root, Status.FAILED)
    with pytest.raises(RayWorkflowEndedError):
        waiting.execute(CONTEXT)


@pytest.mark.parametrize("asked", ["soft_fail", "never_fail"])
def test_the_error_of_a_broken_trigger_skips_too(root: Path, asked: str):
    with pytest.raises(AirflowSkipException):
        sensor(**{asked: True}).resume_execution("__fail__", {"error": "TriggerFailure"}, CONTEXT)
