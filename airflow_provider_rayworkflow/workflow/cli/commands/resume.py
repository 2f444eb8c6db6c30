"""``rayworkflow resume``: go on with a workflow where it stopped."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli import cluster
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one(
        "resume", _resume, "Go on with a workflow where it stopped; don't wait for it."
    )
    parser.add_argument(
        "--from-task", metavar="TASK", help="run this task again, and all that depend on it"
    )
    cluster.add_address(parser)


def _resume(options: Any) -> Answer:
    cluster.join(options)
    api.resume_async(options.workflow_id, from_task=options.from_task)
    return cluster.status_now(options.workflow_id)
