"""``rayworkflow suspend``: stop a workflow so that it can be resumed."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli import cluster
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands


def add_to(commands: Commands) -> None:
    cluster.add_address(
        commands.add_of_one("suspend", _suspend, "Stop a workflow so that it can be resumed.")
    )


def _suspend(options: Any) -> Answer:
    cluster.join(options)
    api.suspend(options.workflow_id)
    return cluster.status_now(options.workflow_id)
