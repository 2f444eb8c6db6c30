"""What follows from the end of an attempt: a commit, a retry, a caught exception, or the run's end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from airflow_provider_rayworkflow.workflow.execution.attempt_table import Attempt, AttemptTable
from airflow_provider_rayworkflow.workflow.execution.cache_requests import Cached
from airflow_provider_rayworkflow.workflow.execution.cached_tasks import CachedTasks
from airflow_provider_rayworkflow.workflow.execution.group_commit import GroupCommit
from airflow_provider_rayworkflow.workflow.execution.result_cache import ResultCache
from airflow_provider_rayworkflow.workflow.execution.run_failures import RunFailures
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.log_line import Level
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome
from airflow_provider_rayworkflow.workflow.model.records import (
    Form,
    JsonOutput,
    Result,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Continued,
    InputsLost,
    Interrupted,
    Lost,
    NotBegun,
    Raised,
    Returned,
)
from airflow_provider_rayworkflow.workflow.scheduling.budgets import Failed
from airflow_provider_rayworkflow.workflow.scheduling.commit_records import (
    as_found,
    cached_record,
    caught_record,
    continued_record,
    returned_record,
    revoked_record,
)
from airflow_provider_rayworkflow.workflow.scheduling.failures import (
    MAX_REBUILDS,
    FailureAction,
    failed_attempt,
    failed_of,
    final_failure,
    timed_out,
    too_many_rebuilds,
)
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode
from airflow_provider_rayworkflow.workflow.scheduling.schedule import Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot

log = get_logger(__name__)

_WITH_VALUE = Returned, Continued

#: Takes a level, the id of a task, the number of its attempt, and a text.
Remark = Callable[[Level, str, int, str], None]


def no_remark(level: Level, task_id: str, attempt: int, text: str) -> None:
    """For those who keep no log."""


class AttemptEnds:
    """Decides what follows from the ends of one run's attempts.

    The schedule is told of a result after its commit.

    :param claim: of the run.
    :param commits: of the run.
    :param cache: of the manager; None for none.
    :param on_result: told each task id that has its result, with the result.
    :param end: ends the run.
    :param is_ended: True once it has been called.
    :param clock: seconds since the epoch.
    :param random: a number between 0 and 1, for the backoff of retries.
    :param on_remark: told what the workflow's log says of its tasks besides what they print.
    :param on_failed: told the cause of each attempt that has failed.
    :ivar cached: what the run takes from the cache, and gives to it.
    :ivar failures: the tasks that have failed for good, and what follows from that.
    :ivar must_rebuild: the run has lost results: it needs a new schedule from what is stored.
    :ivar failed_attempts: how many have failed, by cause.
    :ivar json_output: the workflow's output as JSON, as far as known.
    """

    _schedule: Schedule

    def __init__(
        self,
        claim: Claim,
        *,
        table: AttemptTable,
        commits: GroupCommit,
        cache: ResultCache | None,
        on_result: Callable[[str, Result], None],
        end: Callable[[Outcome], None],
        is_ended: Callable[[], bool],
        clock: Callable[[], float],
        random: Callable[[], float],
        on_remark: Remark,
        on_failed: Callable[[Cause], None],
    ) -> None:
        self.must_rebuild = False
        self.failed_attempts: Counter[str] = Counter()
        self.json_output: JsonOutput | None = None
        self.failures = RunFailures(
            claim, table=table, commits=commits, tell=self._tell, end=end, catch=self._catch
        )
        self._workflow_id = claim.workflow_id
        self._table = table
        self._commits = commits
        self.cached = CachedTasks(
            cache,
            claim,
            table=table,
            on_found=self._take_cached,
            on_missed=lambda node: self._schedule.retry(node),
            on_waits=self._waits_for_cache,
        )
        self._on_result = on_result
        self._end = end
        self._is_ended = is_ended
        self._clock = clock
        self._random = random
        self._on_remark = on_remark
        self._on_failed = on_failed
        self._rebuilds = 0

    def begin(self, schedule: Schedule, snapshot: Snapshot) -> None:
        """Go on with a new schedule. No attempt of the one before is under way."""
        self._schedule = schedule
        self.failures.begin(schedule, snapshot)
        self.json_output = snapshot.committed_json
        self.must_rebuild = False

    def handle(self, attempt: Attempt, end: AttemptEnd) -> None:
        """An attempt has ended: do what follows."""
        node = attempt.node
        self._table.remove(attempt)
        if attempt.follows and not isinstance(end, _WITH_VALUE):
            # What it followed may be on its way to the storage: that comes first.
            attempt.follows = False
            self._commits.commit(None, lambda: self.handle(attempt, end))
            return
        if attempt.is_useless or node.has_no_value:
            self.cached.ended(node)
            return
        if attempt.is_put_off and not isinstance(end, _WITH_VALUE):
            self._schedule.note(node)
            return
        if attempt.is_overdue and isinstance(end, Lost):
            end = timed_out(node, end, self._clock(), is_silent=attempt.is_silent)
        match end:
            case Returned():
                self._returned(node, end)
            case NotBegun():
                self._schedule.not_begun(node)
            case Interrupted():
                log.warning(
                    "Task status [RETRY]\t[%s@%s] the Ray task that it shared with others was lost",
                    *(self._workflow_id, node.task_id),
                )
                self._schedule.interrupted(node)
            case Continued():
                self._continued(node, end)
            case Raised():
                self._failed(node, end.failure, retryable=end.retryable, raised=end)
            case Lost():
                self._failed(node, end.failure, retryable=end.retryable, ran_s=attempt.ran_s)
            case InputsLost():
                self._inputs_lost(node, end)

    # ---- results

    def _returned(self, node: TaskNode, returned: Returned) -> None:
        result = node.as_result(returned.result)
        self._schedule.returned(node, result)
        if node.is_output:
            self.json_output = returned.json_output
        record = returned_record(node, returned, result)

        def then() -> None:
            self.cached.committed(node, returned.result)
            self._tell(self._schedule.finished(node, result))

        self._commits.commit(self._as_stored(node, record), then)

    def _take_cached(self, node: TaskNode, cached: Cached) -> None:
        """The result of a task that waits was found in the cache: it does not run."""
        if self._schedule.is_needless(node):
            return
        result = node.as_result(cached.result)
        self._schedule.returned(node, result)
        if node.is_output:
            self.json_output = cached.json_output
        text = cached.source.text(self._clock())
        log.info("Task status [CACHED]\t[%s@%s] %s", self._workflow_id, node.task_id, text)
        self._on_remark("INFO", node.task_id, 0, f"The result is {text}")
        self._commits.commit(
            self._as_stored(node, cached_record(node, result, cached.source, cached.json_output)),
            lambda: self._tell(self._schedule.finished(node, result)),
        )

    def _waits_for_cache(self, node: TaskNode, computing: str) -> None:
        text = f"The task waits for its result, which {computing} computes"
        log.info("Task status [WAITING]\t[%s@%s] %s", self._workflow_id, node.task_id, text)
        self._on_remark("INFO", node.task_id, 0, text)

    def _continued(self, node: TaskNode, continued: Continued) -> None:
        graph = Graph.from_bytes(continued.graph, key=f"continuation of {node.task_id}")
        task_ids = self._schedule.allocate_ids(graph, node)
        record = continued_record(node, continued, task_ids)
        self.cached.ended(node)  # what the graph runs is no code of the task
        self._commits.commit(
            record if node.checkpoint else None,
            lambda: self._tell(self._schedule.continued(node, graph, task_ids)),
        )

    def _as_stored(self, node: TaskNode, record: TaskRecord) -> TaskRecord | None:
        """The record of a task's result as it is committed; None for a task that keeps none."""
        keeps = node.checkpoint or node.is_output
        return as_found(record, node, self._schedule.output) if keeps else None

    def _tell(self, resolved: Sequence[TaskNode]) -> None:
        for node in resolved:
            if node.result is not None:
                self._on_result(node.task_id, node.result)

    # ---- failures

    def _failed(
        self,
        node: TaskNode,
        failure: TaskFailure,
        *,
        retryable: bool,
        raised: Raised | None = None,
        ran_s: float = 0.0,
    ) -> None:
        cause = failure.cause
        if self.failures.gives_up(node):
            action = FailureAction.IGNORE
        else:
            failed = Failed(cause, retryable, ran_s)
            action = self._schedule.attempt_failed(node, failed)
        if action is not FailureAction.RETRY:
            self.cached.ended(node)
        if self._is_ended() or action is FailureAction.IGNORE:
            # It failed because it was stopped, or too late to matter.
            log.info("Task status [STOPPED]\t[%s@%s]", self._workflow_id, node.task_id)
            self._on_remark("INFO", node.task_id, node.attempts, "The task was stopped")
            return
        log.info("Task status [FAILED]\t[%s@%s]", self._workflow_id, node.task_id)
        self.failed_attempts[cause.value] += 1
        self._on_failed(cause)
        if action is FailureAction.RETRY:
            self._retry(node, failure)
        elif action is FailureAction.CATCH:
            self._catch(node, failure, raised.exception if raised else b"", raised)
        else:
            failure = final_failure(node, failure)
            text = f"The task failed ({failed_of(node, failure)}): {failure}"
            self._on_remark("ERROR", node.task_id, node.attempts, text)
            self.failures.fail(node, failure, raised)

    def _retry(self, node: TaskNode, failure: TaskFailure) -> None:
        failed = failed_attempt(node, failure)
        log.warning(
            "Task status [RETRY]\t[%s@%s] attempt %d failed (%s; %s): %s",
            *(self._workflow_id, node.task_id, node.attempts, failure.cause, failed.note, failure),
        )
        self._on_remark(
            "WARNING",
            node.task_id,
            node.attempts,
            f"The attempt failed ({failed.cause}), and the task is tried again ({failed.note}): "
            f"{failure}",
        )
        self._table.note_retried(failed)
        self.retry_after(node, node.wait_s(failure.cause, self._random()))

    def retry_after(self, node: TaskNode, wait_s: float) -> None:
        """Make a task ready after a while.

        :param wait_s: in seconds.
        """
        if not wait_s:
            self._schedule.retry(node)
            return
        self._table.wait(node, wait_s, lambda: self._schedule.retry(node))
        if self.must_rebuild:
            self._table.stop_waiting()

    def _catch(
        self, node: TaskNode, failure: TaskFailure, exception: bytes, raised: Raised | None = None
    ) -> None:
        catcher = node.catcher
        if catcher is None:
            raise RuntimeError(f"no task catches for {node.task_id}")  # a bug in the scheduler
        result = Result(form=Form.CAUGHT_ERROR, inline=exception)

        def then() -> None:
            resolved, useless = self._schedule.caught(catcher, result)
            for other in useless:
                self._table.stop_useless(other)
            self._tell(resolved)

        record = caught_record(node, catcher, result, failure, raised)
        self._commits.commit(self._as_stored(catcher, record), then)

    def _inputs_lost(self, node: TaskNode, lost: InputsLost) -> None:
        if self.failures.gives_up(node):
            return
        upstream = [node.upstream[position] for position in lost.positions]
        names = [other.task_id for other in upstream]
        log.warning(
            "Workflow %s: %s Task %s takes the results of %s, which run again.",
            *(self._workflow_id, lost.reason, node.task_id, names),
        )
        self._rebuilds += not self.must_rebuild  # one may be lost for many tasks
        if self._rebuilds > MAX_REBUILDS:
            self._end(Outcome(failure=too_many_rebuilds(node, lost, names)))
            return
        for other in upstream:
            if (record := revoked_record(other)) is not None:
                self._commits.commit(record, lambda: None)
            self._schedule.note(other)
        self.must_rebuild = True
        self._table.stop_waiting()  # what is left of a wait comes after the new schedule
