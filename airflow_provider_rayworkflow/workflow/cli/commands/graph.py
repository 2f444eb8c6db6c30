"""``rayworkflow graph``: the tasks of a workflow, and which of them are committed."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored, read_record
from airflow_provider_rayworkflow.workflow.cli.text import table, task_options
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Json
from airflow_provider_rayworkflow.workflow.format.shortening import right_end
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.offline.describe import describe_graph


def add_to(commands: Commands) -> None:
    commands.add_of_one(
        "graph", _graph, "Show the tasks of a workflow and which of them are committed."
    )


def _graph(options: Any) -> Answer:
    store = open_stored(options)
    record = read_record(store, options.workflow_id)
    described = describe_graph(store, record)
    tasks = described["tasks"]
    rows = [
        (
            task["task_id"],
            "cached" if "from_cache" in task else task["checkpoint"] or task["ended"] or "-",
            _seconds(task["stats"]),
            ", ".join(map(right_end, task["workflow_refs"])) or "-",
            task_options(task) or "-",
        )
        for task in tasks
    ]
    committed = sum(task["checkpoint"] in ("committed", "continued") for task in tasks)
    title = f"{one_line(record.workflow_id)} {record.status}: {committed} of {len(tasks)} tasks committed"
    text = table(("TASK", "CHECKPOINT", "SECONDS", "TAKES", "OPTIONS"), rows)
    value = {
        "workflow_id": record.workflow_id,
        "status": record.status,
        "failure": record.failure and record.failure.to_json(),
        **described,
    }
    problems = tuple(f"{damage} A resume runs its task again." for damage in described["damaged"])
    return Answer(value=value, text=f"{title}\n\n{text}", problems=problems)


def _seconds(stats: Json) -> str:
    return f"{stats['end_time'] - stats['start_time']:.2f}" if stats else "-"
