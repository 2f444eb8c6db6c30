"""How values look on the pages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_rayworkflow.workflow.format.nesting import is_nested_deeper
from airflow_provider_rayworkflow.workflow.format.shortening import MAX_NAME_BYTES, shorten
from airflow_provider_rayworkflow.workflow.format.times import duration, utc_time

#: What is said of a task's state, and in which order.
STATE_TITLES = {
    "failed": "failed",
    "retried": "tried again",
    "caught": "ended with an exception, which the workflow takes as its result",
    "running": "running",
    "submitted": "waits for a worker or a limit, or has just begun",
    "waiting": "waits for other tasks",
    "idle": "has not run",
    "not_run": "did not run, as a task upstream has failed",
    "continued": "returned a graph, which runs",
    "done": "done",
    "skipped": "skipped, as no task upstream has failed",
    "cached": "taken from the cache",
    "reused": "done by an earlier run",
}


#: What a resume does with a task.
PLAN_TITLES = {
    "reuse": "keeps its result",
    "check": "runs if what it takes changes",
    "run": "runs",
    "skip": "does not run",
}


def took(times: Any, now: float | None = None) -> float | None:
    """Seconds from ``started_at`` to ``ended_at``, or until now."""
    if times.started_at is None:
        return None
    end: float = times.ended_at or now or time.time()
    return end - float(times.started_at)


def iso_time(timestamp: float | None) -> str:
    """For ``<time>``; the page's script turns it into the reader's time zone."""
    if timestamp is None:
        return ""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds")


def pretty_json(value: Any) -> str:
    """JSON on several lines; on one where it is nested so deep that blanks would be most of it."""
    try:
        compact = json.dumps(value, ensure_ascii=False, check_circular=False)
        if is_nested_deeper(value, _MAX_INDENTED_DEPTH):
            return shorten(compact, _MAX_JSON_BYTES)
        return shorten(json.dumps(value, indent=2, ensure_ascii=False), _MAX_JSON_BYTES)
    except RecursionError:
        return "It is nested too deep to be shown."


def short(text: str) -> str:
    """A name or a message of one line, cut where it is long."""
    return shorten(text, MAX_NAME_BYTES)


_MAX_INDENTED_DEPTH = 15
_MAX_JSON_BYTES = 512 * 1024  # as large as metadata may be, with its blanks


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": duration,
    "took": took,
    "iso_time": iso_time,
    "utc_time": utc_time,
    "pretty_json": pretty_json,
    "short": short,
    "shorten": shorten,
}
