"""How far a workflow is, in words. Pure."""

from __future__ import annotations

from itertools import islice

from airflow_provider_rayworkflow.workflow.format.shortening import right_end
from airflow_provider_rayworkflow.workflow.model.records import Progress, StatusRecord

_NAMED_TASKS = 3


def progress_line(record: StatusRecord) -> str:
    """One line: ``3 of 7 tasks done (1 reused), 2 running (fit, load), 1 waits for a worker``.

    Without the status and the id.
    """
    reused = f" ({record.tasks_reused} reused)" if record.tasks_reused else ""
    parts = [f"{record.tasks_done} of {record.tasks_total} tasks done{reused}"]
    if record.progress is not None:
        parts += _activity(record.progress)
    return ", ".join(parts)


def _activity(progress: Progress) -> list[str]:
    parts = []
    if progress.running_total:
        names = [right_end(task.task_id) for task in progress.running]
        parts.append(f"{progress.running_total} running ({_named(names, progress.running_total)})")
    waiting = progress.submitted - progress.running_total
    if waiting:
        parts.append(f"{waiting} {'waits' if waiting == 1 else 'wait'} for a worker or just began")
    for limits, number in islice(progress.limited.items(), _NAMED_TASKS):
        waits = "waits" if number == 1 else "wait"
        parts.append(f"{number} {waits} for the limit {right_end(limits)}")
    if progress.retried:
        names = [f"{right_end(failed.task_id)}: {failed.error}" for failed in progress.retried]
        parts.append(f"{len(names)} tried again ({_named(names, len(names))})")
    return parts


def _named(names: list[str], total: int) -> str:
    shown = names[:_NAMED_TASKS]
    more = [f"{total - len(shown)} more"] if total > len(shown) else []
    return ", ".join([*shown, *more])


class Throttle:
    """Which lines of progress are worth a place in a log: changes, and the longer the fewer.

    At most one in 10 s, and later one in a twentieth of the time since the first, up to a minute.
    """

    def __init__(self) -> None:
        self._line = ""
        self._first_at: float | None = None
        self._last_at = 0.0

    def is_due(self, line: str, now: float) -> bool:
        """True if the line shall be written, which then counts as done.

        :param now: seconds of a monotonic clock.
        """
        if line == self._line:
            return False
        if self._first_at is None:
            self._first_at = now
        elif now - self._last_at < min(max((now - self._first_at) / 20, _LEAST_S), _MOST_S):
            return False
        self._line, self._last_at = line, now
        return True


_LEAST_S = 10.0
_MOST_S = 60.0
