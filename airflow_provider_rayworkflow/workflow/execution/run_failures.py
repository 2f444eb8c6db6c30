"""What a run does about the tasks that failed for good: what still runs, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.execution.group_commit import GroupCommit
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTask, FailedTasks
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, Stop
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput, Result, TaskFailure
from airflow_provider_rayworkflow.workflow.model.stored_map import failed_result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Raised
from airflow_provider_rayworkflow.workflow.scheduling.commit_records import (
    as_found,
    failed_record,
    skipped_record,
)
from airflow_provider_rayworkflow.workflow.scheduling.map_failures import (
    MapFailures,
    result_task_of,
)
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode
from airflow_provider_rayworkflow.workflow.scheduling.schedule import Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.scheduling.trigger_rules import (
    NOTHING,
    is_skipped,
    outlives_cancel,
    outlives_failures,
)

log = get_logger(__name__)

#: Of so many failed tasks the exception and the traceback are kept in memory.
_MAX_DETAILS = 1_000


class _Failed(NamedTuple):
    node: TaskNode
    failure: TaskFailure
    exception: bytes
    attempt: int


def _weight(failed: _Failed) -> int:
    """Which failure of several decides about the status, and is raised: the lowest, and of these the first."""
    failure = failed.failure
    if failure.system:
        return 1  # RESUMABLE, if there are no others than those that ask to be skipped
    return 2 if failure.asks_to_skip else 0


class RunFailures:
    """The failed tasks of one run, and what follows from them.

    With ``on_failure="stop"``, the first one stops all others but those whose author has given them
    another rule than ``when="all_success"``. Where there are no such tasks, the run ends at once.

    :param commits: of the run.
    :param tell: told the tasks that have their result.
    :param end: ends the run.
    :param catch: makes an exception the result of the nearest task that catches it.
    :ivar is_stopping: a failure, or a cancel, has stopped all tasks without a rule for that.
    :ivar is_cleaning_up: that was a cancel.
    :ivar has_skipped_output: the workflow's output is of a task that was skipped: None.
    """

    _schedule: Schedule

    def __init__(
        self,
        claim: Claim,
        *,
        table: AttemptTable,
        commits: GroupCommit,
        tell: Callable[[Sequence[TaskNode]], None],
        end: Callable[[Outcome], None],
        catch: Callable[[TaskNode, TaskFailure, bytes], None],
    ) -> None:
        self.is_stopping = False
        self.is_cleaning_up = False
        self.has_skipped_output = False
        self._claim = claim
        self._table = table
        self._commits = commits
        self._tell = tell
        self._end = end
        self._catch = catch
        self._found: dict[str, _Failed] = {}
        self._earlier: Mapping[str, TaskRecord] = {}
        self._maps = MapFailures()

    def begin(self, schedule: Schedule, snapshot: Snapshot) -> None:
        """Go on with a new schedule: what failed in this run before is not tried again."""
        self._schedule = schedule
        self._maps = MapFailures()
        if not self.is_stopping:  # else what has failed may not be reached again
            self._found.clear()
        failures = snapshot.checkpoints.failures
        epoch = self._claim.epoch
        here = {name: one for name, one in failures.items() if one.epoch == epoch}
        # The ids in a continuation that was not committed may be other tasks' now.
        known = {placed.task_id for placed in snapshot.tasks()} if here else set()
        self._earlier = {name: one for name, one in here.items() if name in known}

    # ---- failures

    def fail(self, node: TaskNode, failure: TaskFailure, raised: Raised | None) -> None:
        """A task failed for good, and nothing catches that.

        :param raised: None for a failure of the system.
        """
        exception = raised.exception if raised else b""
        if (item := self._maps.counts(node, failure)) is not None:
            given = exception or self._as_exception(failure)
            if node is item:
                self._maps.note(item, failure)  # at once: the next one may be ready
            self._commits.commit(
                failed_record(node, failure, given, raised),
                lambda: self._end_item(item, node, failure, given),
            )
            return
        if self._stops and not self._schedule.has_rules:
            if exception:
                self._commits.commit(failed_record(node, failure, exception, raised), lambda: None)
            self._end(Outcome(failure=failure, exception=exception))
            return
        self._note(node, failure, exception)
        given = exception or self._as_exception(failure)
        self._commits.commit(
            failed_record(node, failure, given, raised),
            lambda: self._end_without_value(node, Result(inline=given)),
        )
        self._stop_after_failure()

    @property
    def _stops(self) -> bool:
        return self._claim.on_failure == "stop"

    def _stop_after_failure(self) -> None:
        if self._stops and not self.is_stopping:
            self._stop_others()

    def _end_item(
        self, item: TaskNode, node: TaskNode, failure: TaskFailure, exception: bytes
    ) -> None:
        """An item of a map has failed, with a task of it or by itself: that fails the map, if too many have."""
        had_failed = item.has_no_value
        self._end_without_value(node, Result(inline=exception))
        if had_failed or not item.has_no_value:
            return  # it has been counted, or it did not need that task
        if item.result is not None:
            item.result = failed_result(failure)
        self._maps.note(item, failure)
        if (error := self._maps.take_error(item)) is None:
            return
        map_failure = TaskFailure(
            task_id=item.creator.task_id if item.creator else "",
            type=type(error).__name__,
            message=str(error),
            traceback="",
        )
        self._fail_map(item, map_failure, b"".join(encode(error).parts))

    def _fail_map(self, item: TaskNode, failure: TaskFailure, exception: bytes) -> None:
        """Too many items of a map have failed. So does the item of another map that has made it."""
        given = result_task_of(item)
        if self._schedule.begin_catch(given):
            self._catch(given, failure, exception)
            return
        outer = self._maps.counts(item.creator, failure) if item.creator else None
        if outer is not None:
            self._end_item(outer, given, failure, exception)
        elif self._stops and not self._schedule.has_rules:
            self._end(Outcome(failure=failure, exception=exception))
            return
        else:
            self._note(given, failure, exception)
            self._end_without_value(given, Result(inline=exception))
        for other in self._table.stop_where(self._maps.is_of_failed):
            self._end_without_value(other, None)
        if outer is None:
            self._stop_after_failure()

    def _note(self, node: TaskNode, failure: TaskFailure, exception: bytes) -> None:
        if len(self._found) < _MAX_DETAILS:
            self._found[node.task_id] = _Failed(node, failure, exception, node.attempts)
        else:
            short = TaskFailure(
                task_id=failure.task_id,
                type=failure.type,
                message=str(failure)[:300],
                traceback="",
                cause=failure.cause,
            )
            self._found[node.task_id] = _Failed(node, short, b"", node.attempts)

    def _as_exception(self, failure: TaskFailure) -> bytes:
        """A failure of the system, for tasks that take it."""
        error = WorkflowExecutionError(
            self._claim.workflow_id, task_id=failure.task_id, reason=str(failure)
        )
        return b"".join(encode(error).parts)

    def _stop_others(self) -> None:
        self.is_stopping = True
        for node in self._table.stop_where(lambda node: not self._goes_on(node)):
            self._end_without_value(node, None)

    def _goes_on(self, node: TaskNode) -> bool:
        return outlives_cancel(node) if self.is_cleaning_up else outlives_failures(node)

    def begin_cleanup(self) -> float:
        """The workflow is canceled: stop all tasks but those that clean up.

        :returns: how long these may take, in seconds; 0 where there are none, and for a second cancel.
        """
        if self.is_cleaning_up or not self._schedule.cleanup_s:
            return 0.0
        self.is_cleaning_up = True
        self._stop_others()
        return self._schedule.cleanup_s

    def gives_up(self, node: TaskNode) -> bool:
        """True for a task whose attempt has failed after all were stopped: it is not run any more."""
        goes_on = not self.is_stopping or self._goes_on(node)
        if goes_on and not self._maps.is_of_failed(node):
            return False
        self._end_without_value(node, None)
        return True

    def _end_without_value(self, node: TaskNode, error: Result | None) -> None:
        self._tell(self._schedule.ended_without_value(node, error))

    # ---- what may start

    def admits(self, node: TaskNode) -> bool:
        """False for a task that is ready and does not run, which is taken care of."""
        if (record := self._earlier.get(node.task_id)) is not None and record.failure is not None:
            self._fail_as_before(node, record.failure, record)
            return False
        if self.gives_up(node):
            return False
        if is_skipped(node):
            self._skip(node)
            return False
        return True

    def _fail_as_before(self, node: TaskNode, failure: TaskFailure, record: TaskRecord) -> None:
        exception = (record.result.inline if record.result else b"") or b""
        if (item := self._maps.counts(node, failure)) is not None:
            self._end_item(item, node, failure, exception)
            return
        self._note(node, failure, exception)
        self._end_without_value(node, Result(inline=exception))

    def may_follow(self, node: TaskNode) -> bool:
        """True for a task that may run right after another one, in the same Ray task."""
        is_stopped = self.is_stopping or self._maps.is_of_failed(node)
        return not (is_stopped or node.task_id in self._earlier)

    def _skip(self, node: TaskNode) -> None:
        result = node.as_result(NOTHING)
        log.info("Task status [SKIPPED]\t[%s@%s]", self._claim.workflow_id, node.task_id)
        self._schedule.returned(node, result)
        json_output = JsonOutput() if node.is_output else None
        self.has_skipped_output = self.has_skipped_output or node.is_output
        record = skipped_record(node, result, json_output)
        keeps = node.checkpoint or node.is_output
        self._commits.commit(
            as_found(record, node, self._schedule.output) if keeps else None,
            lambda: self._tell(self._schedule.finished(node, result)),
        )

    # ---- the end

    @property
    def any(self) -> bool:
        """True if a task has failed, or a cancel is being cleaned up after.

        Then all that runs comes to its end before the run does.
        """
        return self.is_cleaning_up or bool(self._found)

    def outcome(self) -> Outcome | None:
        """How the run ends once nothing of it is under way; None if nothing has failed it."""
        if self.is_cleaning_up:
            return Outcome(stopped=Stop.CANCEL)
        found = [one for one in self._found.values() if not one.node.is_in_caught]
        if not found and self.is_stopping:  # what has been caught since has stopped all others
            found = list(self._found.values())
        if not found:
            return None
        first = min(found, key=_weight)
        failed = FailedTasks.of([FailedTask.of(one.failure, one.attempt) for one in found])
        return Outcome(
            failure=first.failure,
            exception=first.exception,
            failed_tasks=failed if failed.total > 1 else None,
        )
