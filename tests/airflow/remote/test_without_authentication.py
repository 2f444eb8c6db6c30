"""A cluster whose authentication is switched off. All other tests run on Ray's default, with a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from test_tries_on_cluster import Begin, begin  # noqa: F401 a fixture

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.tries.decision import Action
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(token=None)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("mode", "password", "said"),
    [
        ("disabled", None, "asks for no token"),
        ("", None, "takes the token from the file '"),  # that Ray finds
        ("disabled", "any", "takes the token from the connection's password"),
    ],
)
def test_workflows_run_whether_a_token_is_sent_or_not(
    begin: Begin,  # noqa: F811
    connection: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    password: str | None,
    said: str,
):
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(password=password))
    works, message = RayWorkflowHook().test_connection()
    assert works
    assert said in message
    (tmp_path / "open").touch()
    ended = begin(
        Action.RUN,
        token=f"try of {mode} {password}".replace(" ", "-"),
        workflow_id=f"w-{mode}-{password}",
        function="gated",
        arguments={"folder": str(tmp_path)},
        password=password,
    ).wait()
    assert ended.status is WorkflowStatus.SUCCESSFUL
    assert ended.record.output.value == ["a", "after"]
