"""A task leaves its links in XCom as soon as they are known, and each operator finds them there."""

import pytest
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import TaskDeferralError
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_rayworkflow.exceptions import RayWorkflowTimeoutError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.links import RayDashboardLink, RayWorkflowLink
from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator


def test_the_workflows_page_is_below_airflows_own_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    assert RayWorkflowLink.url("cluster", "d.t.scheduled__2026-11-22T00:00:00+00:00 /é") == (
        "https://airflow.example.com/team/rayworkflow/workflow?conn_id=cluster&workflow_id="
        "d.t.scheduled__2026-11-22T00%3A00%3A00%2B00%3A00%20%2F%C3%A9"
    )


def test_without_a_known_address_it_is_on_the_same_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    assert RayWorkflowLink.url("c", "w") == "/rayworkflow/workflow?conn_id=c&workflow_id=w"


def test_the_dashboards_page_is_that_of_the_actors_with_the_manager_among_them():
    assert RayDashboardLink.url("http://ray:8265") == "http://ray:8265/#/actors"


class TaskInstance:
    def __init__(self) -> None:
        self.xcoms: dict[str, str] = {}

    def xcom_push(self, key: str, value: str) -> None:
        self.xcoms[key] = value


def test_a_link_is_what_the_same_process_has_left():
    ti = TaskInstance()
    operator = RayWorkflowResumeOperator(task_id="t", workflow_id="w")
    assert RayWorkflowLink().get_link(operator, ti_key=ti) == ""
    operator._announce({"ti": ti}, "w")
    left = "/rayworkflow/workflow?conn_id=ray_workflow_default&workflow_id=w"
    assert ti.xcoms == {
        "workflow_id": "w",
        "ray_workflow_conn_id": "ray_workflow_default",
        "_link_RayWorkflowLink": left,
    }
    assert RayWorkflowLink().get_link(operator, ti_key=ti) == left
    assert RayDashboardLink().get_link(operator, ti_key=ti) == ""


@pytest.mark.parametrize(("left", "link"), [("http://x", "http://x"), (None, "")])
def test_after_a_deferral_a_link_is_what_is_in_xcom(monkeypatch, left, link: str):
    """Also when Airflow's own clock ended the deferral: then nothing else of ours has run."""
    asked: list[dict] = []
    monkeypatch.setattr(XCom, "get_value", lambda **given: asked.append(given) or left)
    operator = RayWorkflowResumeOperator(task_id="t", workflow_id="w")
    with pytest.raises(TaskDeferralError):
        operator.resume_execution("__fail__", {"error": "Trigger failure"}, {})
    assert RayWorkflowLink().get_link(operator, ti_key="ti") == link
    assert asked == [{"ti_key": "ti", "key": "_link_RayWorkflowLink"}]


def test_a_mapped_task_instance_suspends_its_own_workflow_when_its_deferral_is_over(
    monkeypatch: pytest.MonkeyPatch,
):
    class Mapped:
        id, dag_id, run_id, task_id, map_index = "token", "d", "r", "t", 1

    stored = {1: "mine", -1: "of no instance"}
    monkeypatch.setattr(XCom, "get_value", lambda ti_key, key: stored[ti_key.map_index])
    asked: list[tuple] = []
    monkeypatch.setattr(
        RayWorkflowHook, "request_stop", lambda _, id, token, how: asked.append((id, token, how))
    )
    operator = RayWorkflowResumeOperator(task_id="t", workflow_id="w")
    timeout = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(RayWorkflowTimeoutError, match="The time limit of the deferral"):
        operator.resume_execution("__fail__", timeout, {"ti": Mapped()})
    assert asked == [("mine", "token", "suspend")]
