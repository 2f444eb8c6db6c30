"""The output of workflows' tasks, printed by a driver.

Ray carries the output of a worker to the driver of its own job. Tasks of workflows belong to the
job that started the manager; so a driver has to listen to all, and pick.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.runtime.names import ACTOR_NAME
from airflow_provider_rayworkflow.workflow.runtime.private_ray import print_logs_of_other_jobs
from airflow_provider_rayworkflow.workflow.runtime.worker.events import EventHost

# They print lines of all workflows.
_SHARED_ACTORS = (ACTOR_NAME, EventHost.__name__)

_MAX_PRINTED = 1_000
_printed: dict[str, None] = {}  # in the order in which they came
_lock = threading.Lock()


def print_logs_of(workflow_id: str) -> None:
    """Have this driver print of a workflow what Ray prints if its own job started the manager.

    Of the latest thousand for which it was called.
    """
    with _lock:
        _printed[workflow_id] = None
        if len(_printed) > _MAX_PRINTED:
            del _printed[next(iter(_printed))]
    print_logs_of_other_jobs(_pick)


def _pick(data: dict[str, Any]) -> list[str]:
    with _lock:
        return _lines_of(list(_printed), data)


def _lines_of(workflow_ids: Sequence[str], data: dict[str, Any]) -> list[str]:
    """Of what Ray's log monitor found in one file, the lines that are of these workflows."""
    lines: list[str] = data["lines"]
    if _is_of_task(workflow_ids, data):
        return lines
    if data.get("actor_name") not in _SHARED_ACTORS:
        return []
    return [line for line in lines if any(_is_about(line, name) for name in workflow_ids)]


def _is_of_task(workflow_ids: Sequence[str], data: dict[str, Any]) -> bool:
    task_name = data.get("task_name") or ""
    return any(task_name.startswith(f"{name}@") for name in workflow_ids)


def _is_about(line: str, workflow_id: str) -> bool:
    name = workflow_id
    forms = (f'"{name}"', f"[{name}]", f"[{name}@", f"Workflow {name} ", f"Workflow {name}:")
    return any(form in line for form in forms)
