"""Links are left in XCom as soon as they are known, and found there by whoever is asked for them."""

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_rayworkflow.links import RayDashboardLink, RayWorkflowLink


def test_the_workflows_page_is_below_airflows_own_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    assert RayWorkflowLink.url("cluster", "d.t.scheduled__2026-11-22T00:00:00+00:00 /é") == (
        "https://airflow.example.com/team/rayworkflow/workflow?conn_id=cluster&workflow_id="
        "d.t.scheduled__2026-11-22T00%3A00%3A00%2B00%3A00%20%2F%C3%A9"
    )


def test_without_a_known_address_it_is_on_the_same_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    assert RayWorkflowLink.url("c", "w") == "/rayworkflow/workflow?conn_id=c&workflow_id=w"


def test_the_dashboards_page_is_that_of_the_job():
    assert RayDashboardLink.url("http://ray:8265", "rayworkflow-x-1") == (
        "http://ray:8265/#/jobs/rayworkflow-x-1"
    )


@pytest.mark.parametrize(("left", "link"), [("http://x", "http://x"), (None, "")])
def test_a_link_is_what_was_left_for_it(monkeypatch: pytest.MonkeyPatch, left, link: str):
    asked: list[dict] = []
    monkeypatch.setattr(XCom, "get_value", lambda **given: asked.append(given) or left)
    assert RayWorkflowLink().get_link(None, ti_key="the task instance") == link
    assert asked == [{"ti_key": "the task instance", "key": "_link_RayWorkflowLink"}]
