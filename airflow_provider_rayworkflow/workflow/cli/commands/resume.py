"""``rayworkflow resume``: go on with a workflow where it stopped."""

from __future__ import annotations

from typing import Any, get_args

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli import cluster
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.model.records import OnFailure


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one(
        "resume", _resume, "Go on with a workflow where it stopped; don't wait for it."
    )
    parser.add_argument(
        "--from-task", metavar="TASK", help="run this task again, and all that depend on it"
    )
    parser.add_argument(
        "--on-failure",
        choices=get_args(OnFailure),
        help="when a task fails: stop the others, or finish what does not depend on it; "
        "by default as in the run before",
    )
    cluster.add_address(parser)


def _resume(options: Any) -> Answer:
    cluster.join(options)
    api.resume_async(
        options.workflow_id, from_task=options.from_task, on_failure=options.on_failure
    )
    return cluster.status_now(options.workflow_id)
