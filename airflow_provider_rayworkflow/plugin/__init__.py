"""Pages of Airflow's UI: all workflows of a connection, one workflow, and the same as a tab.

Airflow imports this module in each of its processes: nothing heavy here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

#: Where the pages are, below the address of Airflow's API server.
URL_PREFIX = "/rayworkflow"


def base_path() -> str:
    """What stands before every path of this Airflow, ``""`` for nothing."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


_PAGES = f"{base_path()}{URL_PREFIX}"


class RayWorkflowPlugin(AirflowPlugin):
    """The page "Ray workflows" in the menu "Browse", and a tab on every task instance."""

    name = "rayworkflow"
    external_views = [  # noqa: RUF012 Airflow's
        {
            "name": "Ray workflows",
            "href": f"{_PAGES}/workflows",
            "destination": "nav",
            "category": "browse",
            "url_route": "ray_workflows",
            "icon": f"{_PAGES}/static/icon.svg",
            "icon_dark_mode": f"{_PAGES}/static/icon-dark.svg",
        },
        {
            "name": "Ray workflow",
            "href": f"{_PAGES}/task_instance?dag_id={{DAG_ID}}&run_id={{RUN_ID}}"
            "&task_id={TASK_ID}&map_index={MAP_INDEX}",
            "destination": "task_instance",
            "url_route": "ray_workflow",
            "icon": f"{_PAGES}/static/icon.svg",
            "icon_dark_mode": f"{_PAGES}/static/icon-dark.svg",
        },
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override] # a list there
        """Only the API server asks for it; FastAPI is imported there and nowhere else."""
        from airflow_provider_rayworkflow.plugin.web.app import create_app

        return [{"app": create_app(), "url_prefix": URL_PREFIX, "name": "Ray workflows"}]
