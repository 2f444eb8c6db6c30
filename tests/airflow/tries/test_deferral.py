"""Short waits stay in the worker, and no deferral is shorter than what Airflow needs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.sdk import PokeReturnValue
from airflow.sdk.exceptions import TaskDeferred
from dag_test import connection

from airflow_provider_rayworkflow.hooks import StoredWorkflow
from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator
from airflow_provider_rayworkflow.sensors import RayWorkflowSensor
from airflow_provider_rayworkflow.tries import deferral
from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger
from airflow_provider_rayworkflow.triggers.workflow import TriggerTimes
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

RUNNING = StatusRecord(
    workflow_id="w", status=Status.RUNNING, epoch=1, number=0, manager_id="m", created_at=0.0
)
DONE = replace(RUNNING, status=Status.SUCCESSFUL, output=JsonOutput(value=5))


class TaskInstance:
    id = "this try"
    task_id = "t"


# ---- the trigger


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_CONN_WAITED", connection(storage=str(tmp_path)))
    return tmp_path


def seconds_until_fired(trigger: RayWorkflowTrigger, reason: str) -> float:
    async def wait() -> str:
        (event,) = [event async for event in trigger.run()]
        return event.payload["reason"]

    begun = time.monotonic()
    assert asyncio.run(wait()) == reason
    return time.monotonic() - begun


@pytest.mark.parametrize("reason", ["status", "deadline", "unreachable"])
def test_a_deferral_lasts_as_long_as_airflow_needs_however_it_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, reason: str
):
    WorkflowStore(open_store(str(root))).write_status(DONE)
    if reason == "unreachable":
        monkeypatch.delenv("AIRFLOW_CONN_WAITED")
    trigger = RayWorkflowTrigger(
        workflow_id="w",
        statuses=[] if reason == "deadline" else ["SUCCESSFUL"],
        ray_workflow_conn_id="waited",
        poll_interval_s=0.01,
        deadline=0.0 if reason == "deadline" else None,
        unreachable_timeout_s=0.0,
        times=TriggerTimes(deferral_s=0.3),
    )
    trigger.task_instance = TaskInstance()  # Airflow's, in the triggerer
    assert seconds_until_fired(trigger, reason) >= 0.3


@pytest.mark.timeout(60)
def test_where_no_executor_reports_a_trigger_fires_at_once(root: Path):
    """In ``dag.test()`` a trigger has no task instance."""
    WorkflowStore(open_store(str(root))).write_status(DONE)
    trigger = RayWorkflowTrigger(
        workflow_id="w",
        statuses=["SUCCESSFUL"],
        ray_workflow_conn_id="waited",
        poll_interval_s=0.01,
        times=TriggerTimes(deferral_s=3600),
    )
    seconds_until_fired(trigger, "status")


def test_a_deferral_outlasts_airflows_intervals(monkeypatch: pytest.MonkeyPatch):
    assert deferral.least_deferral_s() >= 5 + 1 + 5, "Airflow's defaults, and some time to act"
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "60")
    monkeypatch.setenv("AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", "9.5")
    assert deferral.least_deferral_s() >= 60 + 9.5 + 5
    assert deferral.latest_return_s() > deferral.least_deferral_s(), "the trigger comes first"


# ---- the operators


class Run:
    """A workflow that runs, and ends if it is waited for in the worker."""

    workflow_id = "w"
    carried: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, *, ends: bool) -> None:
        self._ends = ends
        self.waited_s = 0.0

    def wait(self, found: StoredWorkflow, *, at_most_s: float) -> StoredWorkflow:
        self.waited_s = at_most_s
        return StoredWorkflow(record=DONE, status=Status.SUCCESSFUL) if self._ends else found

    def close(self, **_: object) -> None:
        pass

    def report(self, ended: StoredWorkflow) -> None:
        pass

    def rejoin(self, carried: dict[str, object]) -> StoredWorkflow:
        return StoredWorkflow(record=RUNNING, status=Status.RUNNING)


def see_through(run: Run, *, deadline: float | None = None) -> object:
    task = RayWorkflowResumeOperator(task_id="t", workflow_id="w", deferrable=True)
    running = StoredWorkflow(record=RUNNING, status=Status.RUNNING)
    return task._see_through(run, lambda: running, {"ti": TaskInstance()}, deadline)


def test_a_workflow_that_ends_in_the_first_seconds_is_not_deferred():
    run = Run(ends=True)
    assert see_through(run) == 5
    assert run.waited_s == deferral.STAY_S > 0


def test_a_workflow_that_goes_on_is_deferred():
    with pytest.raises(TaskDeferred) as deferred:
        see_through(Run(ends=False), deadline=time.time() + 100)
    assert deferred.value.timeout.total_seconds() > 100 + deferral.least_deferral_s()


class Resume(RayWorkflowResumeOperator):
    """Its tries are stood for by these, one after the other."""

    def __init__(self, *, runs: list[Run], **given: object) -> None:
        super().__init__(**given)
        self._runs = iter(runs)

    def _try_again(self, *_: object) -> Run:
        return next(self._runs)


def test_a_task_that_a_triggerer_with_another_storage_sends_back_waits_again():
    runs = [Run(ends=False), Run(ends=True)]
    task = Resume(task_id="t", workflow_id="w", deferrable=True, runs=runs)
    event = {"reason": "status", "workflow_id": "w", "status": "NONE", "error": ""}
    event |= {"carried": {"deadline": None}}
    context = {"ti": TaskInstance()}
    with pytest.raises(TaskDeferred):
        task.execute_complete(context, event)
    assert task.execute_complete(context, event) == 5


def test_the_time_limit_of_a_task_counts_before_its_deferral():
    run = Run(ends=False)
    with pytest.raises(TaskDeferred):
        see_through(run, deadline=time.time() + deferral.STAY_S / 2)
    assert run.waited_s <= deferral.STAY_S / 2


# ---- the sensor


def test_a_sensor_does_not_defer_for_a_status_that_comes_in_the_first_seconds():
    looks = iter([False, False, True])

    class Sensor(RayWorkflowSensor):
        def poke(self, context: object) -> PokeReturnValue:
            return PokeReturnValue(next(looks), xcom_value="SUCCESSFUL")

    waiting = Sensor(task_id="s", workflow_id="w", deferrable=True, poke_interval=0.001)
    assert waiting._wait_deferred(time.time() + 3600, "its timeout") == "SUCCESSFUL"
