"""The log of a workflow's tasks as the pages get it: the last lines first, then what is new."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow.storage.log_pieces import LogCursor
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

#: How many lines one answer has at most.
MAX_LINES = 1000
#: How many characters they have, about: lines may have 16 KiB each.
MAX_TEXT = 256 * 1024


def log_after(
    store: WorkflowStore, workflow_id: str, *, task_id: str, after: str
) -> dict[str, Any]:
    """The lines after a cursor; without one, the last lines.

    :param task_id: only lines of this task; ``""`` for all.
    :param after: the ``"cursor"`` of the answer before; ``""`` for none.
    :returns: ``"lines"``, each with ``at`` (seconds since the epoch), ``level``, ``task_id``,
        ``attempt`` and ``text``; ``"cursor"``; ``"damaged"``: what is left out; ``"is_cut"``: there are
        earlier lines than these.
    :raises StorageError: when it can't be read.
    """
    task = task_id or None
    if after:
        found = store.logs.read(
            workflow_id,
            LogCursor.parse(after),
            task_id=task,
            most_lines=MAX_LINES,
            most_text=MAX_TEXT,
        )
    else:
        found = store.logs.read_last(workflow_id, MAX_LINES, task_id=task, most_text=MAX_TEXT)
    return {
        "lines": [line.to_json() for line in found.lines],
        "cursor": str(found.cursor),
        "damaged": found.damaged,
        "is_cut": found.is_cut,
    }
