"""Which tasks of a run have ended without a value, for readers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from airflow_provider_rayworkflow.workflow.scheduling.levels import Level
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot


class FailedEnd(StrEnum):
    """How a task has ended that has no value."""

    FAILED = "failed"
    #: A failure upstream stands in its way.
    NOT_RUN = "not run"


def failed_ends(
    snapshot: Snapshot, also: Collection[str] = (), *, epoch: int = 0
) -> Mapping[str, FailedEnd]:
    """The tasks that have failed in a run, and those that could not run because of that.

    A task whose continuation has failed counts as failed.

    :param also: tasks that have failed and left no record of that.
    :param epoch: of the run; 0 for that of the snapshot's claim.
    """
    epoch = epoch or snapshot.claim.epoch
    failures = snapshot.checkpoints.failures
    failed = {task_id for task_id, record in failures.items() if record.epoch == epoch}
    failed.update(filter(None, also))
    found: dict[str, FailedEnd] = {}
    # From the innermost continuation outwards: its end is that of the task that made it.
    for level in reversed(list(snapshot.levels())) if failed else ():
        _add(found, level, failed, snapshot)
        if level.creator and level.task_ids[-1] in found:
            found[level.creator] = FailedEnd.FAILED
    return found


def _add(
    found: dict[str, FailedEnd], level: Level, failed: Collection[str], snapshot: Snapshot
) -> None:
    for task, task_id in zip(level.graph.tasks, level.task_ids, strict=True):
        if task_id in found or snapshot.counts(task_id):
            continue
        is_behind_one = any(level.task_ids[index] in found for index in task.upstream)
        if task_id in failed:
            found[task_id] = FailedEnd.FAILED
        elif is_behind_one and not task.options.takes_failures:
            found[task_id] = FailedEnd.NOT_RUN
