"""The output of one workflow's tasks, printed by a driver.

Ray carries the output of a worker to the driver of its own job. Tasks of workflows belong to the
job that started the manager; so a driver has to listen to all, and pick.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_rayworkflow.workflow.runtime.names import ACTOR_NAME
from airflow_provider_rayworkflow.workflow.runtime.private_ray import listen_to_logs

log = logging.getLogger(__name__)

_QUIET_S = 1.0  # Ray's log monitor looks at the files a few times a second
_MAX_WAIT_S = 5.0


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


class _Printer:
    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._changed = threading.Condition()
        self._printed = 0

    def print(self, data: dict[str, Any]) -> None:
        """Take what Ray's log monitor found in one file."""
        task_name = data.get("task_name") or ""
        if task_name.startswith(f"{self._workflow_id}@"):
            lines = [f"[{task_name}] {line}" for line in data["lines"]]
        elif data.get("actor_name") == ACTOR_NAME:
            lines = [line for line in data["lines"] if self._workflow_id in line]
        else:
            return
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
