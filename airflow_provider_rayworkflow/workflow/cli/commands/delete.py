"""``rayworkflow delete``: delete all that is stored of a workflow."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli import cluster
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands


def add_to(commands: Commands) -> None:
    cluster.add_address(
        commands.add_of_one("delete", _delete, "Delete all that is stored of a workflow.")
    )


def _delete(options: Any) -> Answer:
    cluster.join(options)
    api.delete(options.workflow_id)
    value = {"workflow_id": options.workflow_id, "deleted": True}
    return Answer(value=value, text=f"{options.workflow_id} is deleted")
