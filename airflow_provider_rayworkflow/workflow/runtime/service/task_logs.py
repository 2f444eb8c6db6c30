"""The output of workflows' tasks, printed by a driver.

Ray carries the output of a worker to the driver of its own job. Tasks of workflows belong to the
job that started the manager; so a driver has to listen to all, and pick.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import ACTOR_NAME
from airflow_provider_rayworkflow.workflow.runtime.private_ray import (
    listen_to_logs,
    print_logs_of_other_jobs,
)
from airflow_provider_rayworkflow.workflow.runtime.worker.events import EventHost

log = get_logger(__name__)

_QUIET_S = 1.0  # Ray's log monitor looks at the files a few times a second
_MAX_WAIT_S = 5.0

# They print lines of all workflows.
_SHARED_ACTORS = (ACTOR_NAME, EventHost.__name__)

_MAX_PRINTED = 1_000
_printed: dict[str, None] = {}  # in the order in which they came
_lock = threading.Lock()


@contextmanager
def printing_logs_of(workflow_id: str) -> Iterator[None]:
    """Print what the workflow's tasks print, and what the manager says of it."""
    printer = _Printer(workflow_id)
    if not listen_to_logs(printer.print):
        log.warning("This version of Ray does not let us print what the workflow's tasks print")
    try:
        yield
    finally:
        printer.wait_until_quiet()


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


class _Printer:
    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._changed = threading.Condition()
        self._printed = 0

    def print(self, data: dict[str, Any]) -> None:
        """Take what Ray's log monitor found in one file."""
        label = f"[{data['task_name']}] " if _is_of_task([self._workflow_id], data) else ""
        lines = [f"{label}{line}" for line in _lines_of([self._workflow_id], data)]
        with self._changed:
            for line in lines:
                print(line, flush=True)
                self._printed += 1
            self._changed.notify_all()

    def wait_until_quiet(self) -> None:
        """Let those lines come that are on their way."""
        sys.stdout.flush()
        deadline = time.monotonic() + _MAX_WAIT_S
        with self._changed:
            while time.monotonic() < deadline:
                if not self._changed.wait(_QUIET_S):
                    return


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
