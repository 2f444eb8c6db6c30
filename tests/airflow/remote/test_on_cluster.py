"""Workflows on a remote cluster, which gets this package with the job that starts its manager."""

import json
import os
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from dag_test import Outcome, test_dag

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.names import MANAGER_IS_UP
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

HERE = Path(__file__).parent

pytestmark = pytest.mark.timeout(1_050)


@pytest.fixture(scope="module")
def witness(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("witness")


@pytest.fixture(scope="module")
def outcome(airflow_home: Path, connection, witness: Path) -> Outcome:
    nowhere = json.loads(connection()) | {"host": "http://127.0.0.1:9"}
    return test_dag(
        airflow_home,
        HERE / "dags" / "on_cluster.py",
        {
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(),
            "AIRFLOW_CONN_NO_CLUSTER": json.dumps(nowhere),
            "WITNESS": str(witness),
            "SHIPPED": str(HERE / "shipped"),
        },
    )


def test_the_retry_resumes_on_the_cluster(outcome: Outcome, witness: Path, root: Path):
    assert outcome.states["by_path"] == "success", outcome.log
    assert outcome.tries["by_path"] == 2
    assert Counter((witness / "ran").read_text().split()) == {"a": 1, "b": 2}
    record = WorkflowStore(open_store(str(root))).read_status(
        f"on_cluster.by_path.{outcome.run_id}"
    )
    assert record.status is WorkflowStatus.SUCCESSFUL
    assert (record.tasks_total, record.tasks_done, record.tasks_reused) == (3, 3, 1)


def test_the_cluster_gets_the_package_and_the_runtime_env(outcome: Outcome):
    output = outcome.xcoms["by_path", "return_value"]
    assert output["before"] == ["a", 9]
    assert "runtime_resources/py_modules_files" in output["package"]
    assert f"/rayworkflow-archives-{os.getuid()}/" in output["pipeline"]
    assert output["flavour"] == "on_cluster"
    assert output["airflow_home"] is None


def test_a_function_of_the_dag_file_runs_on_the_cluster(outcome: Outcome):
    assert outcome.states["by_function"] == "success"
    assert outcome.xcoms["by_function", "return_value"] == {"doubled": 42}


def test_a_taskflow_workflow_is_mapped_and_resumed_by_its_retry(outcome: Outcome, witness: Path):
    names = ["by_decorator.0", "by_decorator.1"]
    assert [outcome.states[name] for name in names] == ["success", "success"], outcome.log
    assert [outcome.tries[name] for name in names] == [2, 1]
    assert [outcome.xcoms[name, "return_value"] for name in names] == [
        [2, outcome.run_id],
        [4, outcome.run_id],
    ]
    ran = Counter((witness / "by_decorator" / "ran").read_text().splitlines())
    assert ran == {"first 1": 1, "second 1": 2, "first 2": 1, "second 2": 1}


def test_a_failed_workflow_is_resumed_by_another_task(outcome: Outcome, witness: Path):
    assert (outcome.states["fails"], outcome.states["resumes"]) == ("failed", "success")
    assert outcome.xcoms["resumes", "return_value"] == ["a", "fragile"]
    assert Counter((witness / "fails" / "ran").read_text().split()) == {"a": 1, "fragile": 2}


def test_links_lead_to_the_workflow_and_to_the_dashboard(outcome: Outcome, cluster):
    workflow_id = f"failed-{outcome.run_id}"
    page = outcome.xcoms["resumes", "_link_RayWorkflowLink"]
    assert page == (
        "/rayworkflow/workflow?conn_id=ray_workflow_default&workflow_id="
        f"{quote(workflow_id, safe='')}"
    )
    assert outcome.xcoms["resumes", "_link_RayDashboardLink"] == f"{cluster.address}/#/actors"


def test_the_output_of_the_workflows_tasks_is_in_the_task_log_once(outcome: Outcome):
    """Of each of the two workflows that run this task; their later tries and resumes don't repeat it."""
    printed = [line for line in outcome.log.splitlines() if "a says hello" in line]
    assert len(printed) == 2, printed
    for line in printed:
        assert "[pipeline.a] a says hello" in line
        assert "error" not in line.partition("[pipeline.a]")[0].lower(), "at its own level"


@pytest.mark.parametrize(
    ("workflow_id", "unfinished"),
    [("on_cluster.by_path.{}", 2), ("failed-{}", 1)],
    ids=["waiting in the worker", "deferrable, and soon over"],
)
def test_what_a_resume_reuses_is_in_the_task_log_once(
    outcome: Outcome, workflow_id: str, unfinished: int
):
    line = (
        f"Workflow {workflow_id.format(outcome.run_id)} goes on: 1 task reused, 0 changed, 0 new, "
        f"0 dropped, {unfinished} not finished before"
    )
    said = [
        said for said in outcome.log.splitlines() if line in said and "loc=workflow_try.py" in said
    ]
    assert len(said) == 1, outcome.log


def test_the_log_has_the_original_traceback_of_the_failure(outcome: Outcome):
    assert "RayWorkflowFailedError: Task 'b' of workflow" in outcome.log
    assert 'raise RuntimeError("b fails once")' in outcome.log


def test_a_function_that_the_cluster_can_not_import_fails_the_task_with_the_reason(
    outcome: Outcome,
):
    assert outcome.states["no_module"] == "failed"
    assert "there is no module 'no_such_module'. It is looked up on the cluster" in outcome.log


def test_a_runtime_env_that_can_not_be_made_fails_the_task_with_the_reason(outcome: Outcome):
    assert outcome.states["bad_environment"] == "failed"
    assert "no-such-code.zip" in outcome.log


def test_a_cluster_that_can_not_be_reached_fails_the_task_after_its_time(outcome: Outcome):
    assert outcome.states["no_cluster"] == "failed"
    assert "RayWorkflowUnreachableError: The Ray cluster at http://127.0.0.1:9 can't" in outcome.log
    assert "Given up after 1 s" in outcome.log


def test_arguments_are_not_on_rays_dashboard_and_not_left_in_the_storage(
    outcome: Outcome, cluster, root: Path
):
    import httpx

    headers = {"Authorization": f"Bearer {cluster.token}"}
    jobs = httpx.get(f"{cluster.address}/api/jobs/", headers=headers)
    (job,) = jobs.json()  # one for the manager, and none for a workflow
    assert job["submission_id"].startswith("rayworkflow-manager")
    assert job["status"] == "RUNNING"
    printed = httpx.get(f"{cluster.address}/api/jobs/{job['submission_id']}/logs", headers=headers)
    assert MANAGER_IS_UP in printed.json()["logs"]
    assert "swordfish" not in jobs.text
    assert list((root / "v1" / "submissions").glob("*by_path*/*")) == []
