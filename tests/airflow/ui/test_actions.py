"""What is offered by a workflow's status, and a resume when the cluster does not answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from fastapi import HTTPException
from stored import one, origin

from airflow_provider_rayworkflow.plugin.web.actions import ActionBody, PageAction, act, offered
from airflow_provider_rayworkflow.plugin.web.shown import open_workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox


class Everything:
    """A user who may do everything."""

    def check(self, method: str, conn_id: str, origin: Any) -> None:
        pass

    def allows(self, method: str, conn_id: str, origin: Any) -> bool:
        return True


@ray.remote
def fails() -> None:
    raise ValueError("boom")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage, known to a connection without a cluster and to one whose cluster is away."""
    root = tmp_path / "storage"
    settings = {"conn_type": "ray_workflow", "extra": {"storage": str(root)}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL", json.dumps(settings))
    away = settings | {"host": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    task_instance = {"airflow": origin("d", "t", "r")}
    with testing.in_process(str(root)) as workflows:
        for workflow_id, graph, metadata in (
            ("failed", fails.bind(), {}),
            ("failed of airflow", fails.bind(), task_instance),
            ("successful of airflow", one.bind(), task_instance),
            ("canceled", fails.bind(), {}),
        ):
            ray.wait([workflows.run_async(graph, workflow_id=workflow_id, metadata=metadata)])
        workflows.cancel("canceled")
    return root


@pytest.mark.parametrize(
    ("conn_id", "workflow_id", "expected"),
    [
        ("local", "failed", {PageAction.CANCEL, PageAction.DELETE}),
        ("away", "failed", {PageAction.RESUME, PageAction.CANCEL, PageAction.DELETE}),
        (
            "local",
            "failed of airflow",
            {PageAction.RESUME, PageAction.RUN_AGAIN, PageAction.CANCEL, PageAction.DELETE},
        ),
        ("local", "successful of airflow", {PageAction.RUN_AGAIN, PageAction.DELETE}),
        ("local", "canceled", {PageAction.DELETE}),
    ],
)
@pytest.mark.usefixtures("root")
def test_the_possible_actions_are_offered(
    conn_id: str, workflow_id: str, expected: set[PageAction]
):
    workflow = open_workflow(Everything(), conn_id, workflow_id)
    assert set(offered(Everything(), workflow)) == expected


def test_a_cluster_that_does_not_answer_is_told_and_the_workflow_stays_as_it_is(root: Path):
    body = ActionBody(conn_id="away", workflow_id="failed", action=PageAction.RESUME)
    with pytest.raises(HTTPException) as raised:
        act(Everything(), body, timeout_s=0.0)
    assert raised.value.status_code == 502
    store = WorkflowStore(open_store(str(root)))
    record = store.read_status("failed")
    assert record is not None
    assert record.status == "FAILED"
    assert Mailbox(store.bytes).list_submissions() == []  # else a cluster would run it days later


def test_pages_start_no_local_ray(root: Path, monkeypatch: pytest.MonkeyPatch):
    """It would be one of the API server's machine."""
    monkeypatch.setenv("RAY_WORKFLOW_LOCAL_FOLDER", str(root.parent / "local"))
    body = ActionBody(conn_id="local", workflow_id="failed", action=PageAction.RESUME)
    with pytest.raises(HTTPException) as raised:
        act(Everything(), body, timeout_s=0.0)
    assert raised.value.status_code == 409
    assert not (root.parent / "local").exists()
    assert Mailbox(WorkflowStore(open_store(str(root))).bytes).list_submissions() == []


@pytest.mark.usefixtures("root")
def test_a_task_that_is_not_there_can_not_be_run_again():
    body = ActionBody(
        conn_id="local",
        workflow_id="failed of airflow",
        action=PageAction.RUN_AGAIN,
        task_id="no such task",
    )
    with pytest.raises(HTTPException, match="no such task") as raised:
        act(Everything(), body)
    assert raised.value.status_code == 422
