"""Drives one run of one workflow: starts what is ready, commits what came back, goes on.

All state changes in one loop, fed by one queue; nothing here knows Ray, and nothing unpickles.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor as ThreadPool
from functools import partial
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError
from airflow_provider_rayworkflow.workflow.execution.attempt_ends import (
    AttemptEnds,
    Remark,
    no_remark,
)
from airflow_provider_rayworkflow.workflow.execution.attempt_table import Attempt, AttemptTable
from airflow_provider_rayworkflow.workflow.execution.group_commit import GroupCommit
from airflow_provider_rayworkflow.workflow.execution.limit_keeper import LimitKeeper
from airflow_provider_rayworkflow.workflow.execution.limit_waits import LimitWaits
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.execution.result_cache import ResultCache
from airflow_provider_rayworkflow.workflow.execution.saved_tasks import SavedTasks
from airflow_provider_rayworkflow.workflow.execution.writes import Guard, Writes
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.outcome import (
    Outcome,
    Stop,
    describe_output,
    system_failure,
)
from airflow_provider_rayworkflow.workflow.model.records import Result, ReuseCounts
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Accept, Errand, Runner
from airflow_provider_rayworkflow.workflow.scheduling.linear_runs import follower_of
from airflow_provider_rayworkflow.workflow.scheduling.schedule import Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_committed
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

# The schedule of fewer tasks is made in the event loop: that takes less time than to ask a thread.
_FEW_TASKS = 50


class TaskCounts(NamedTuple):
    """How far a run is.

    :ivar total: tasks of the graph and of its continuations so far.
    :ivar done: of these, how many have ended or need not run.
    :ivar reused: of these, how many have a checkpoint of an earlier run that counts.
    """

    total: int
    done: int
    reused: int


class Executor:
    """One run of one workflow under one epoch.

    :param threads: where storage calls block.
    :param writes: write the checkpoints.
    :param guard: says whether they may still be written.
    :param on_result: told each task id that has its result, with the result.
    :param metrics: told each attempt that has come back.
    :param clock: seconds since the epoch; shown, and nothing is decided by it.
    :param random: a number between 0 and 1, for the backoff of retries.
    :param files: what lies in the workflow's folder, as far as earlier epochs have left it; None
        if that has to be listed.
    :param known: ids of the tasks of the graph of the run before; None if they are not known.
    :param on_remark: told what the workflow's log says of its tasks besides what they print.
    :param cache: of the manager; None for none.
    :param limits: those that its tasks share with other workflows; by default its own.
    :ivar attempts: those that are under way.
    :ivar reuse: what was found of earlier runs; None until they are read, and in a first run.
    """

    reuse: ReuseCounts | None = None
    _outcome: Outcome | None = None
    _schedule: Schedule | None = None
    _cleanup_end: asyncio.TimerHandle | None = None

    def __init__(
        self,
        *,
        claim: Claim,
        graph: Graph,
        store: WorkflowStore,
        runner: Runner,
        threads: ThreadPool,
        writes: Writes,
        on_result: Callable[[str, Result], None],
        metrics: Metrics,
        clock: Callable[[], float],
        random: Callable[[], float] = random.random,
        guard: Guard | None = None,
        files: Sequence[WorkflowFile] | None = None,
        known: Collection[str] | None = None,
        on_remark: Remark = no_remark,
        cache: ResultCache | None = None,
        limits: LimitKeeper | None = None,
    ) -> None:
        self.workflow_id, self._claim = claim.workflow_id, claim
        self._graph, self._code = graph, tuple(graph.code.items())
        self._store, self._threads = store, threads
        self._metrics, self._files, self._known = metrics, files, known
        self._saved = SavedTasks(claim.workflow_id, claim.epoch, store.bytes, threads)
        self._queue: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        place = store.bytes, claim.workflow_id, claim.epoch
        journal = JournalWriter(*place, signing=store.signing, segment_bytes=store.segment_bytes)
        later = self._queue.put_nowait
        self._commits = GroupCommit(
            journal, writes, guard=guard, enqueue=later, on_written=self._on_written
        )
        self.attempts = AttemptTable(
            runner, take_back=self.take_back, follow=self._follow, enqueue=later, clock=clock
        )
        self._ends = AttemptEnds(
            claim,
            table=self.attempts,
            commits=self._commits,
            cache=cache,
            on_result=on_result,
            end=self._end,
            is_ended=lambda: self._outcome is not None,
            clock=clock,
            random=random,
            on_remark=on_remark,
            on_failed=metrics.attempt_failed,
        )
        keeper = limits or LimitKeeper()
        self._limits = LimitWaits(keeper, self.attempts, self._ends.retry_after, on_remark)

    # ---- asking

    @property
    def counts(self) -> TaskCounts:
        """How many tasks are known, done, and reused."""
        if (schedule := self._schedule) is None:
            return TaskCounts(len(self._graph.tasks), 0, 0)
        return TaskCounts(schedule.total, min(schedule.done, schedule.total), schedule.reused)

    @property
    def failed_attempts(self) -> dict[str, int]:
        """How many attempts have failed, by cause."""
        return dict(self._ends.failed_attempts)

    def result_of(self, task_id: str) -> Result | None:
        """The output, if the task gives it: it may be in memory only."""
        if self._schedule and self._schedule.output.task_id == task_id:
            return self._schedule.output.result
        return None

    # ---- telling

    def stop(self, reason: Stop) -> None:
        """Stop the run: start no task any more, and stop the running ones; a second call gives them no time.

        A cancel leaves those that clean up to run for a while; a second one does not.
        """
        self._queue.put_nowait(lambda: self._stop(reason))

    @property
    def cleans_up(self) -> bool:
        """True if a cancel would leave tasks to run for a while."""
        return self._schedule is not None and self._schedule.cleanup_s > 0

    # ---- running

    async def run(self) -> Outcome:
        """Run to the end.

        What running tasks return while the run is being stopped is still committed.

        :raises StorageError: when what is stored can't be read.
        """
        try:
            outcome = await self._run()
            await self._saved.close(is_successful=outcome.result is not None)
            return outcome
        except BaseException:
            self.attempts.stop_all(at_once=True)  # nothing takes their results any more
            self.attempts.cancel_waiting()
            self._limits.drop_unused()
            raise
        finally:
            self._ends.cached.close()

    async def _run(self) -> Outcome:
        schedule = await self._build()
        while True:
            if self._outcome is None and not self._ends.must_rebuild:
                self._start_ready(schedule)
                self._check_finished(schedule)
            self._limits.drop_unused()
            if self._outcome is not None and self._outcome.stopped is Stop.FENCED:
                self._commits.discard_waiting()
            self._commits.write_waiting()
            if self.attempts.is_empty and not self._commits.is_busy:
                if self._outcome is not None:
                    return self._outcome
                if self._ends.must_rebuild:
                    self.attempts.forget_retried()
                    await self._saved.deleted()  # before a committed task saves again
                    schedule = await self._build()
                    continue
            (await self._queue.get())()
            while not self._queue.empty():
                self._queue.get_nowait()()

    async def _build(self) -> Schedule:
        """Make the schedule from what is stored, and go on with it."""
        is_new = self._schedule is None and self._claim.epoch == self._claim.base_epoch
        tried = self._schedule.tried if self._schedule else None
        files, self._files = self._files, None  # later there is more

        def build() -> tuple[Snapshot, Schedule]:
            checkpoints = Checkpoints() if is_new else self._read_committed(files)
            snapshot = Snapshot(
                claim=self._claim, graph=self._graph, checkpoints=checkpoints, known=self._known
            )
            return snapshot, Schedule(snapshot, tried)

        if is_new and len(self._graph.tasks) <= _FEW_TASKS:
            snapshot, schedule = build()
        else:
            loop = asyncio.get_running_loop()
            snapshot, schedule = await loop.run_in_executor(self._threads, build)
        for damage in snapshot.checkpoints.damaged:
            log.warning("Workflow %s: %s Its task runs again.", self.workflow_id, damage)
        dropped = snapshot.dropped
        if not is_new:
            counts = ReuseCounts(**schedule.found, dropped=len(dropped))
            log.info("Workflow %s goes on: %s", self.workflow_id, counts)
            if self._schedule is None:
                self.reuse = counts
        if dropped:
            log.warning(
                "Workflow %s: %d tasks with a checkpoint are not in its graph any more: %s",
                *(self.workflow_id, len(dropped), sorted(dropped)[:20]),
            )
        self._schedule = schedule
        self._ends.begin(schedule, snapshot)
        return schedule

    def _read_committed(self, files: Sequence[WorkflowFile] | None) -> Checkpoints:
        files = self._store.list_files(self.workflow_id) if files is None else files
        checkpoints = read_committed(self._store, self._claim, files=files)
        self._saved.found(files, checkpoints.records)
        return checkpoints

    def _start_ready(self, schedule: Schedule) -> None:
        while (node := schedule.take_ready()) is not None:
            if not self._ends.failures.admits(node):
                continue
            if wait_s := self.attempts.wait_left_s(node):
                schedule.put_off(node)
                self._ends.retry_after(node, wait_s)
            elif self._ends.cached.asks_for(node) or self._limits.must_wait(node):
                schedule.put_off(node)
            else:
                run = node.task_run(self._claim, node.attempts, code=self._code)
                self.attempts.start(node, run, self._limits.take(node))

    def _follow(self, attempt: Attempt, accept: Accept) -> Errand | None:
        """See :meth:`.Errand.follow`."""
        if attempt.is_useless or self._ends.must_rebuild or self._outcome is not None:
            return None
        node, schedule = attempt.node, self._schedule
        if schedule is None or (follower := follower_of(node)) is None:
            return None
        if self.attempts.wait_left_s(follower) or not self._ends.failures.may_follow(follower):
            return None
        run = follower.task_run(self._claim, follower.attempts + 1, code=self._code)
        if not accept(run):
            return None
        schedule.take_follower(node, follower)
        return self.attempts.add(follower, run, follows=True)

    def _check_finished(self, schedule: Schedule) -> None:
        failures = self._ends.failures
        if self._commits.is_busy or (failures.any and not self.attempts.is_empty):
            return
        if (failed := failures.outcome()) is not None:
            self._end(failed)
        elif schedule.is_finished:
            result = schedule.output.result
            is_skipped = self._ends.failures.has_skipped_output
            known = None if is_skipped else self._ends.json_output
            json_output = describe_output(result, known)
            self._end(Outcome(result=result, json_output=json_output))

    # ---- what came back

    def take_back(self) -> None:
        """Do what follows from the ends of attempts; called in the loop of the run."""
        ended, self.attempts.ended = self.attempts.ended, []
        self._metrics.tasks_ended([end for _, end in ended])
        for attempt, end in ended:
            self._saved.ended(attempt.node.task_id, end)
            self._ends.handle(attempt, end)

    def _on_written(self, records: Sequence[TaskRecord], error: BaseException | None) -> None:
        if error is None:
            self._log_successful(records)
            self._saved.committed(records)
            return
        if isinstance(error, OwnershipLostError):
            self._end(Outcome(stopped=Stop.FENCED, lost=error))
            return
        log.error("Workflow %s: a checkpoint can't be written: %s", self.workflow_id, error)
        failure = system_failure(error, task_id=records[0].task_id)
        self._end(Outcome(failure=failure))

    def _log_successful(self, records: Sequence[TaskRecord]) -> None:
        names = [one.task_id for one in records if not (one.is_failure or one.is_revoked)]
        # In one piece: what goes before a line takes longer than a short task.
        lines = (f"Task status [SUCCESSFUL]\t[{self.workflow_id}@{name}]" for name in names)
        if text := "\n".join(lines):
            log.info("%s", text)

    def _stop(self, reason: Stop) -> None:
        end = partial(self._end, Outcome(stopped=reason))
        is_again = self._outcome is not None or self._cleanup_end is not None
        is_first_cancel = reason is Stop.CANCEL and not is_again
        if is_first_cancel and (cleanup_s := self._ends.failures.begin_cleanup()):
            loop = asyncio.get_running_loop()
            self._cleanup_end = loop.call_later(cleanup_s, self._queue.put_nowait, end)
            return
        end()
        if is_again:
            self.attempts.stop_all(at_once=True)

    def _end(self, outcome: Outcome) -> None:
        fenced = outcome.stopped is Stop.FENCED
        if self._outcome is not None and not fenced:
            return
        if self._ends.failures.is_cleaning_up and not fenced:
            outcome = Outcome(stopped=Stop.CANCEL)  # whatever its cleanup met
        self._outcome = outcome
        if self._cleanup_end is not None:
            self._cleanup_end.cancel()
        self.attempts.cancel_waiting()
        self.attempts.stop_all(at_once=fenced)
