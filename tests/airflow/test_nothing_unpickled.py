"""Airflow's side reads, waits, cancels and deletes without unpickling what a cluster wrote."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from dag_test import connection

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import (
    RayWorkflowCancelOperator,
    RayWorkflowDeleteOperator,
    RayWorkflowPruneOperator,
    RayWorkflowResumeOperator,
)
from airflow_provider_rayworkflow.sensors import RayWorkflowSensor
from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.testing import in_process


class Trap:
    """A process that unpickles it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (_spring, (self.trace,))


def _spring(trace: Path) -> Trap:
    trace.touch()
    return Trap(trace)


class TaskInstance:
    id = "this try"
    try_number, max_tries = 1, 0

    def xcom_push(self, key: str, value: object) -> None:
        pass


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that unpickles a function, argument, result or error of the workflows makes it."""
    trace, root = tmp_path / "sprung", tmp_path / "storage"

    @workflow.options(task_id="passed")
    @ray.remote(max_retries=0)
    def passed(trap):
        return [trap]

    @ray.remote(max_retries=0)
    def failing(traps):
        raise ValueError(traps)

    with in_process(str(root)) as workflows:
        workflows.run_async(passed.bind(Trap(trace)), workflow_id="done")
        workflows.get_output("done")
        with pytest.raises(WorkflowExecutionError):
            workflows.run(failing.bind(passed.bind(Trap(trace))), workflow_id="failed")
    assert trace.exists(), "the trap works"
    trace.unlink()
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(root)))
    return trace


@pytest.mark.invariant(7)
async def test_nothing_is_unpickled_by_airflows_side(trace: Path):
    context = {
        "ti": TaskInstance(),
        "task_reschedule_count": 0,
        "dag_run": SimpleNamespace(conf={}),
    }
    hook = RayWorkflowHook()
    assert hook.find("done").status == "SUCCESSFUL"
    assert "ValueError" in hook.find("failed").record.failure.type
    assert hook.has_finished(hook.find("done"), "passed")

    resume = RayWorkflowResumeOperator(task_id="t", workflow_id="done")
    assert resume.execute({**context, "task_state_store": {}}) is None, "it is not JSON"

    trigger = RayWorkflowTrigger(
        workflow_id="done",
        statuses=["SUCCESSFUL"],
        ray_workflow_conn_id="ray_workflow_default",
        poll_interval_s=0.01,
    )

    (status,) = [event.payload["status"] async for event in trigger.run()]
    assert status == "SUCCESSFUL"
    sensor = RayWorkflowSensor(task_id="s", workflow_id="done", deferrable=True)
    assert sensor.execute(context) == "SUCCESSFUL"

    assert RayWorkflowCancelOperator(task_id="c", workflow_id="failed").execute({}) == ["failed"]
    prune = RayWorkflowPruneOperator(task_id="p", older_than=timedelta(0), keep_outputs=True)
    assert prune.execute({}) == ["failed"], "of the other there is only the output"
    assert RayWorkflowDeleteOperator(task_id="d", workflow_id="done").execute({}) == ["done"]
    assert not trace.exists()
