"""``rayworkflow resume-all``: resume all workflows that were interrupted."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli import cluster
from airflow_provider_rayworkflow.workflow.cli.text import first_line, table
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Json


def add_to(commands: Commands) -> None:
    parser = commands.add("resume-all", _resume_all, "Resume all workflows that were interrupted.")
    parser.add_argument("--include-failed", action="store_true", help="also those that have failed")
    cluster.add_address(parser)


def _resume_all(options: Any) -> Answer:
    cluster.join(options)
    results: list[Json] = [
        {"workflow_id": workflow_id, "resumed": error is None, "error": error and first_line(error)}
        for workflow_id, error in api.resume_each(options.include_failed)
    ]
    rows = [(result["workflow_id"], "yes" if result["resumed"] else "no") for result in results]
    return Answer(
        value=results,
        text=table(("WORKFLOW", "RESUMED"), rows) if rows else "Nothing to resume.",
        problems=tuple(f"{r['workflow_id']}: {r['error']}" for r in results if r["error"]),
    )
