"""Figures for Prometheus, through Ray's own metrics.

Ray exports each under its name with ``ray_`` before it, on every node's metrics endpoint. Their tags
have few values: no ids of workflows or tasks, which would make a series of each.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd
from airflow_provider_rayworkflow.workflow.storage.backends.measured import Write

log = get_logger(__name__)

_MINUTE, _HOUR = 60, 3600
_INTERVAL_S = 1.0


class RayMetrics(Metrics):
    """The figures of one manager."""

    def __init__(self) -> None:
        self._held = Gauge(
            "workflow_held",
            "Workflows that the manager runs (RUNNING) or that wait for a slot (PENDING).",
            tag_keys=("status",),
        )
        self._ends = Counter(
            "workflow_ends",
            "Workflows that have left the manager, by the status that they then had.",
            tag_keys=("status",),
        )
        self._seconds = Histogram(
            "workflow_run_seconds",
            "How long a workflow ran, from its start or resume.",
            boundaries=[1, 10, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, 24 * _HOUR],
            tag_keys=("status",),
        )
        self._reused = Counter(
            "workflow_tasks_reused",
            "Tasks of ended runs that did not run because an earlier run had committed them.",
        )
        self._task_ends = Counter(
            "workflow_task_ends",
            "Attempts of tasks that have come back: Returned a value, Continued with a graph, "
            "Raised, Lost with their worker; or did not run (InputsLost, NotBegun, Interrupted).",
            tag_keys=("outcome",),
        )
        self._failed_attempts = Counter(
            "workflow_failed_attempts",
            "Attempts of tasks that have failed, by cause; those that were tried again, too.",
            tag_keys=("cause",),
        )
        self._task_seconds = Histogram(
            "workflow_task_seconds",
            "How long the function of a task ran in its worker.",
            boundaries=[0.01, 0.1, 1, 10, _MINUTE, 10 * _MINUTE, _HOUR],
            tag_keys=("outcome",),
        )
        # Each figure lets go of the interpreter's lock, which costs a run more than the figure does.
        self._waiting: collections.deque[tuple[str, float | None]] = collections.deque()
        threading.Thread(target=self._record_waiting, name="task-metrics", daemon=True).start()
        self.workflows_held(running=0, pending=0)

    def workflows_held(self, *, running: int, pending: int) -> None:
        self._held.set(running, {"status": WorkflowStatus.RUNNING.value})
        self._held.set(pending, {"status": WorkflowStatus.PENDING.value})

    def workflow_ended(self, record: StatusRecord) -> None:
        tags = {"status": record.status.value}
        self._ends.inc(1, tags)
        if record.started_at is not None and record.ended_at is not None:
            self._seconds.observe(max(0.0, record.ended_at - record.started_at), tags)
        if record.tasks_reused:
            self._reused.inc(record.tasks_reused)

    def tasks_ended(self, completions: Sequence[AttemptEnd]) -> None:
        for completion in completions:
            times = getattr(completion, "times", None)  # some have not run to an end
            seconds = max(0.0, times.ended_at - times.started_at) if times else None
            self._waiting.append((type(completion).__name__, seconds))

    def _record_waiting(self) -> None:
        while True:
            time.sleep(_INTERVAL_S)
            ended = [self._waiting.popleft() for _ in range(len(self._waiting))]
            try:
                self._record(ended)
            except Exception:  # without this thread, what waits would grow for ever
                log.exception("Figures of %d attempts are lost", len(ended))

    def _record(self, ended: Sequence[tuple[str, float | None]]) -> None:
        for outcome, number in collections.Counter(outcome for outcome, _ in ended).items():
            self._task_ends.inc(number, {"outcome": outcome})
        for outcome, seconds in ended:
            if seconds is not None:
                self._task_seconds.observe(seconds, {"outcome": outcome})

    def attempt_failed(self, cause: Cause) -> None:
        self._failed_attempts.inc(1, {"cause": cause.value})


def count_write(write: Write) -> None:
    """Add a write of this process to its figures."""
    bytes_, seconds, failures = _writes()
    tags: dict[str, str] = {"kind": write.kind}
    if write.failed:
        failures.inc(1, tags)
    else:
        bytes_.inc(write.size, tags)
        seconds.observe(write.seconds, tags)


@functools.cache
def _writes() -> tuple[Counter, Histogram, Counter]:
    return (
        Counter(
            "workflow_storage_written_bytes",
            "Bytes that were written to the workflow storage, by what they are.",
            tag_keys=("kind",),
        ),
        Histogram(
            "workflow_storage_write_seconds",
            "How long a write to the workflow storage took until it was durable.",
            boundaries=[0.005, 0.02, 0.1, 0.5, 2, 10, _MINUTE],
            tag_keys=("kind",),
        ),
        Counter(
            "workflow_storage_write_failures",
            "Writes to the workflow storage that were given up.",
            tag_keys=("kind",),
        ),
    )
