"""Links from a task instance to its workflow's page and to Ray's dashboard.

An operator leaves each URL in an XCom as soon as it knows it; so a link is there while the task
runs or is deferred, and the process that goes on after a deferral need not know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class LeavesLinks:
    """An operator that leaves links of its task instance."""

    #: What this process has left, by XCom key; None if an earlier one of the same try has.
    left_links: dict[str, str] | None

    def _leave_link(self, ti: Any, link: BaseOperatorLink, url: str) -> None:
        if self.left_links is not None:
            self.left_links[link.xcom_key] = url
        ti.xcom_push(link.xcom_key, url)


class _LeftLink(BaseOperatorLink):
    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """What the operator has left; ``""`` if nothing. Airflow asks after each part of a task."""
        left: dict[str, str] | None = getattr(operator, "left_links", None)
        if left is not None:
            return left.get(self.xcom_key, "")
        found = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return found if isinstance(found, str) else ""


class RayWorkflowLink(_LeftLink):
    """To the page of the workflow, which all tries of a task instance share."""

    name = "Ray workflow"

    @staticmethod
    def url(ray_workflow_conn_id: str, workflow_id: str) -> str:
        """The page's address, below that of Airflow's API server."""
        base = conf.get("api", "base_url", fallback="") or ""
        query = urlencode(
            {"conn_id": ray_workflow_conn_id, "workflow_id": workflow_id}, quote_via=quote, safe=""
        )
        return f"{base.rstrip('/')}/rayworkflow/workflow?{query}"


class RayDashboardLink(_LeftLink):
    """To the cluster's dashboard; none for the local Ray, which has none."""

    name = "Ray dashboard"

    @staticmethod
    def url(address: str) -> str:
        """The address of the actors, the storage's manager among them."""
        return f"{address}/#/actors"
