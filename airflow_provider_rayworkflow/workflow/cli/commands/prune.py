"""``rayworkflow prune``: delete workflows that ended long ago."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, add_status, duration_s
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.model.retention import PRUNABLE
from airflow_provider_rayworkflow.workflow.offline.prune import PRUNED_BY_DEFAULT, prune


def add_to(commands: Commands) -> None:
    parser = commands.add(
        "prune", _prune, "Delete workflows that ended long ago; needs no cluster."
    )
    parser.add_argument(
        "--older-than",
        metavar="TIME",
        type=duration_s,
        required=True,
        help="since they ended: 90s, 15m, 12h, 30d",
    )
    add_status(parser, PRUNABLE, f"which ones; by default {', '.join(PRUNED_BY_DEFAULT)}")
    parser.add_argument(
        "--keep-outputs",
        action="store_true",
        help="of successful ones keep status, graph and output, and delete the other checkpoints",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say which ones")


def _prune(options: Any) -> Answer:
    store = open_stored(options)
    problems: list[str] = []
    pruned = prune(
        store,
        older_than_s=options.older_than,
        now=time.time(),
        statuses=options.status or PRUNED_BY_DEFAULT,
        keep_outputs=options.keep_outputs,
        dry_run=options.dry_run,
        report=problems.append,
    )
    names = ("workflow_id", "status", "kept_output")
    rows = [(one.workflow_id, one.status.value, one.kept_output) for one in pruned]
    verb = "would be pruned" if options.dry_run else "are pruned"
    lines = [f"{one_line(workflow_id)}  {status}" for workflow_id, status, _ in rows]
    return Answer(
        value=[dict(zip(names, row, strict=True)) for row in rows],
        text="\n".join([*lines, f"{len(rows)} workflows {verb}."]),
        problems=tuple(problems),
    )
