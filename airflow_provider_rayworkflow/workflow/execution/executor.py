"""Drives one run of one workflow: starts what is ready, commits what came back, goes on.

All state changes in one loop, fed by one queue; nothing here knows Ray, and nothing unpickles.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass, field, replace

from airflow_provider_rayworkflow.workflow.exceptions import (
    OwnershipLostError,
    WorkflowTaskTimeoutError,
)
from airflow_provider_rayworkflow.workflow.execution.group_commit import Commit, GroupCommit
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.execution.writes import Guard, Writes
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, Stop, describe_output
from airflow_provider_rayworkflow.workflow.model.records import (
    SHOWN_TASKS,
    FailedAttempt,
    Form,
    JsonOutput,
    Progress,
    Result,
    ReuseCounts,
    RunningTask,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    Accept,
    AttemptEnd,
    Continued,
    Earlier,
    Errand,
    InputsLost,
    Interrupted,
    Lost,
    NotBegun,
    Raised,
    Returned,
    Runner,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.scheduling.schedule import FailureAction, Node, Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_committed
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

#: How often a run may lose results that it had, before it is left for a later resume.
MAX_REBUILDS = 10

#: How much of what the tasks of a run print is kept with their checkpoints, in characters. What
#: later ones print is in the log only.
MAX_PRINTED = 4 * 1024 * 1024

_MAX_ERROR_LENGTH = 300
# What is to be run of fewer tasks is found out at once: that takes less than to ask a thread.
_FEW_TASKS = 50


class _Attempt(Errand):
    """A task that is under way.

    :ivar follows: it runs after another one in the same Ray task, whose result may not be
        committed when this one has ended.
    """

    __slots__ = (
        *("_executor", "state", "node", "follows"),
        *("running", "is_useless", "is_overdue", "killer"),
    )

    def __init__(
        self, executor: Executor, state: _State, node: Node, run: TaskRun, *, follows: bool
    ) -> None:
        self.run = run
        self._executor = executor
        self.state = state
        self.node = node
        self.follows = follows
        self.running: RunningTask | None = None
        self.is_useless = False
        self.is_overdue = False
        self.killer: asyncio.TimerHandle | None = None

    def on_done(self, completion: AttemptEnd) -> None:
        self._executor.came_back(self, completion)

    def follow(self, accept: Accept) -> Errand | None:
        return self._executor.follower(self, accept)


@dataclass(slots=True)
class _State:
    schedule: Schedule
    attempts: dict[Node, _Attempt] = field(default_factory=dict)
    timers: dict[Node, asyncio.TimerHandle] = field(default_factory=dict)
    must_rebuild: bool = False


class Executor:
    """One run of one workflow under one epoch.

    :param threads: where storage calls block.
    :param writes: write the checkpoints.
    :param guard: says whether they may still be written.
    :param on_result: told each task id that has its result, with the result.
    :param measures: told each attempt that has come back.
    :param files: what lies in the workflow's folder, as far as earlier epochs have left it; None
        if that has to be asked.
    :param known: ids of the tasks of the graph of the run before; None if they are not known.
    :ivar reuse: what was found of earlier runs; None as long as nobody has looked, and in the first.
    """

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
        guard: Guard | None = None,
        files: Sequence[WorkflowFile] | None = None,
        known: Collection[str] | None = None,
    ) -> None:
        self.workflow_id = claim.workflow_id
        self.epoch = claim.epoch
        self.reuse: ReuseCounts | None = None
        self._claim = claim
        self._graph = graph
        self._store = store
        self._runner = runner
        self._threads = threads
        self._on_result = on_result
        self._metrics = metrics
        self._files = files
        self._known = known
        self._queue: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._back: list[tuple[_Attempt, AttemptEnd]] = []
        self._commits = GroupCommit(
            JournalWriter(store.bytes, claim.workflow_id, claim.epoch, signing=store.signing),
            writes,
            guard=guard,
            on_written=lambda batch, error: self._queue.put_nowait(
                lambda: self._written(batch, error)
            ),
        )
        self._outcome: Outcome | None = None
        self._json_output: JsonOutput | None = None
        self._rebuilds = 0
        self._printed = 0
        self._state: _State | None = None
        self._retried: dict[str, FailedAttempt] = {}

    @property
    def progress(self) -> tuple[int, int, int]:
        """Tasks known, done, and reused from earlier runs."""
        if self._state is None:
            return len(self._graph.tasks), 0, 0
        schedule = self._state.schedule
        return schedule.total, min(schedule.done, schedule.total), schedule.reused

    def running_task_ids(self) -> list[str]:
        """The tasks that are being run now."""
        return [node.task_id for node in self._state.attempts] if self._state else []

    def activity(self, now: float) -> Progress:
        """What is being done now.

        :param now: seconds since the epoch.
        """
        attempts = self._state.attempts.values() if self._state else ()
        running = sorted(
            (attempt.running for attempt in attempts if attempt.running is not None),
            key=lambda task: task.started_at,
        )
        return Progress(
            at=now,
            submitted=len(attempts),
            running_total=len(running),
            running=tuple(running[:SHOWN_TASKS]),
            retried=tuple(self._retried.values())[:SHOWN_TASKS],
        )

    def has_begun(self, task: RunningTask) -> None:
        """A worker has begun an attempt."""
        for attempt in self._state.attempts.values() if self._state else ():
            if (attempt.node.task_id, attempt.node.attempts) == (task.task_id, task.attempt):
                attempt.running = task

    def result_of(self, task_id: str) -> Result | None:
        """A result that is only in memory: of the output, or of a task that keeps no checkpoint."""
        if self._state and self._state.schedule.output.task_id == task_id:
            return self._state.schedule.output.result
        return None

    def kill_overdue(self, task_id: str, attempt: int, after_s: float) -> None:
        """Stop a task that has not ended by then: its time is over, and it can't be interrupted."""
        for running in self._state.attempts.values() if self._state else ():
            if running.node.task_id == task_id and running.node.attempts == attempt:
                loop = asyncio.get_running_loop()
                running.killer = loop.call_later(after_s, self._kill, running)

    def _kill(self, running: _Attempt) -> None:
        running.is_overdue = True
        self._runner.stop(running)

    def stop(self, reason: Stop) -> None:
        """Stop the run: no task is started any more, running ones are stopped."""
        self._queue.put_nowait(lambda: self._end(Outcome(stopped=reason)))

    async def run(self) -> Outcome:
        """Run to the end.

        What running tasks return while the run is being stopped is still committed.

        :raises StorageError: when what is stored can't be read.
        """
        try:
            return await self._run()
        except BaseException:
            self._stop_attempts()  # nothing takes their results any more
            raise

    async def _run(self) -> Outcome:
        self._state = await self._build()
        while True:
            state = self._state
            if self._outcome is None and not state.must_rebuild:
                self._start_ready(state)
                self._check_finished(state)
            if self._outcome is not None and self._outcome.stopped is Stop.FENCED:
                self._commits.discard_waiting()
            self._commits.write_waiting()
            if self._is_idle(state):
                if self._outcome is not None:
                    return self._outcome
                if state.must_rebuild:
                    self._retried.clear()
                    self._state = await self._build()
                    continue
            (await self._queue.get())()
            while not self._queue.empty():
                self._queue.get_nowait()()

    def _is_idle(self, state: _State) -> bool:
        return not (state.attempts or state.timers or self._commits.is_busy)

    async def _build(self) -> _State:
        is_new = self._state is None and self.epoch == self._claim.base_epoch
        tried = self._state.schedule.tried if self._state else None
        files, self._files = self._files, None  # later there is more

        def build() -> tuple[Snapshot, Schedule]:
            snapshot = Snapshot(
                claim=self._claim,
                graph=self._graph,
                checkpoints=Checkpoints()
                if is_new
                else read_committed(self._store, self._claim, files=files),
                known=self._known,
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
            if self._state is None:
                self.reuse = counts
        if dropped:
            log.warning(
                "Workflow %s: %d tasks with a checkpoint are not in its graph any more: %s",
                *(self.workflow_id, len(dropped), sorted(dropped)[:20]),
            )
        self._json_output = snapshot.committed_json
        return _State(schedule)

    # ---- starting

    def _start_ready(self, state: _State) -> None:
        while (node := state.schedule.take_ready()) is not None:
            run = self._task_run(node, node.attempts)
            self._runner.start(self._attempt(state, node, run, follows=False))

    def follower(self, attempt: _Attempt, accept: Accept) -> Errand | None:
        """See :meth:`Errand.follow`."""
        state, node = attempt.state, attempt.node
        if attempt.is_useless or state.must_rebuild or self._outcome is not None:
            return None
        after = state.schedule.follower(node)
        if after is None:
            return None
        run = self._task_run(after, after.attempts + 1)
        if not accept(run):
            return None
        state.schedule.take_follower(node, after)
        return self._attempt(state, after, run, follows=True)

    def _attempt(self, state: _State, node: Node, run: TaskRun, *, follows: bool) -> _Attempt:
        attempt = state.attempts[node] = _Attempt(self, state, node, run, follows=follows)
        if run.is_event:
            attempt.running = RunningTask(
                task_id=run.task_id, attempt=run.attempt, started_at=time.time()
            )
        return attempt

    def _task_run(self, node: Node, attempt: int) -> TaskRun:
        blobs, task = node.graph.blobs, node.task
        return TaskRun(
            workflow_id=self.workflow_id,
            epoch=self.epoch,
            task_id=node.task_id,
            attempt=attempt,
            function=blobs[task.function],
            arguments=node.graph.arguments_of(task),
            ray_options=blobs[task.ray_options] if task.ray_options >= 0 else b"",
            inputs=tuple(other.result or Earlier(other.task_id) for other in node.upstream),
            checkpoint=node.checkpoint or node.is_output,
            wants_json=node.is_output,
            timeout_s=task.options.timeout_s,
            is_event=task.options.is_event,
            name=task.name,
            can_share=node.can_share,
            catches=node.catches,
            traceparent=self._claim.traceparent,
        )

    def _check_finished(self, state: _State) -> None:
        output = state.schedule.output
        if state.schedule.is_finished and not self._commits.is_busy:
            result = output.result
            self._end(
                Outcome(result=result, json_output=describe_output(result, self._json_output))
            )

    # ---- what came back

    def came_back(self, attempt: _Attempt, completion: AttemptEnd) -> None:
        """An attempt has ended."""
        if not self._back:  # many come at once: one turn for all
            self._queue.put_nowait(self._take_back)
        self._back.append((attempt, completion))

    def _take_back(self) -> None:
        back, self._back = self._back, []
        self._metrics.tasks_ended([completion for _, completion in back])
        for attempt, completion in back:
            self._completed(attempt, completion)

    def _completed(self, attempt: _Attempt, completion: AttemptEnd) -> None:
        state, node = attempt.state, attempt.node
        state.attempts.pop(node, None)
        if attempt.killer is not None:
            attempt.killer.cancel()
        self._retried.pop(node.task_id, None)
        if attempt.follows and not isinstance(completion, Returned | Continued):
            # What it followed may be on its way to the storage: that comes first.
            attempt.follows = False
            self._commits.add(None, lambda: self._completed(attempt, completion))
            return
        if attempt.is_useless:
            return
        if attempt.is_overdue and isinstance(completion, Lost):
            completion = self._timed_out(node, completion)
        match completion:
            case NotBegun():
                state.schedule.not_begun(node)
            case Interrupted():
                log.warning(
                    "Task status [RETRY]\t[%s@%s] the Ray task that it shared with others was lost",
                    *(self.workflow_id, node.task_id),
                )
                state.schedule.interrupted(node)
            case Returned():
                self._returned(state, node, completion)
            case Continued():
                self._continued(state, node, completion)
            case Raised():
                self._raised(state, node, completion)
            case Lost(failure=failure, retryable=retryable):
                self._log_status("FAILED", node.task_id)
                verdict = state.schedule.attempt_failed(node, system=True, retryable=retryable)
                self._after_failure(state, node, verdict, failure)
            case InputsLost():
                self._inputs_lost(state, node, completion)

    def _returned(self, state: _State, node: Node, returned: Returned) -> None:
        result = node.as_result(returned.result)
        state.schedule.returned(node, result)
        if node.is_output:
            self._json_output = returned.json_output

        def then() -> None:
            self._tell(state.schedule.finished(node, result))

        record = TaskRecord(
            task_id=node.task_id,
            times=returned.times,
            result=result,
            json_output=returned.json_output,
            fingerprints=node.made_of(),
            printed=self._kept(returned.printed),
        )
        self._commit_result(state, node, record, then)

    def _continued(self, state: _State, node: Node, continued: Continued) -> None:
        graph = Graph.from_bytes(continued.graph, key=f"continuation of {node.task_id}")
        task_ids = state.schedule.allocate_ids(graph, node)

        def then() -> None:
            self._tell(state.schedule.continued(node, graph, task_ids))

        record = TaskRecord(
            task_id=node.task_id,
            times=continued.times,
            graph=continued.graph,
            task_ids=tuple(task_ids),
            catches=node.catches,
            fingerprints=node.made_of(),
            printed=self._kept(continued.printed),
        )
        self._commit(record if node.checkpoint else None, then)

    def _kept(self, printed: str) -> str:
        """What is kept with a checkpoint of what its task printed: a resume reads all of it."""
        self._printed += len(printed)
        return printed if self._printed <= MAX_PRINTED else ""

    def _tell(self, resolved: Sequence[Node]) -> None:
        for node in resolved:
            if node.result is not None:
                self._on_result(node.task_id, node.result)

    def _timed_out(self, node: Node, lost: Lost) -> Raised:
        error = WorkflowTaskTimeoutError(node.task_id, node.task.options.timeout_s or 0)
        now = time.time()
        return Raised(
            failure=replace(
                lost.failure, type=type(error).__qualname__, message=str(error), system=False
            ),
            exception=b"".join(encode(error).parts),
            retryable=True,
            times=TaskTimes(started_at=now, ended_at=now, attempt=node.attempts),
        )

    def _raised(self, state: _State, node: Node, raised: Raised) -> None:
        verdict = state.schedule.attempt_failed(node, system=False, retryable=raised.retryable)
        self._after_failure(state, node, verdict, raised.failure, raised)

    def _after_failure(
        self,
        state: _State,
        node: Node,
        verdict: FailureAction,
        failure: TaskFailure,
        raised: Raised | None = None,
    ) -> None:
        exception = raised.exception if raised else b""
        if self._outcome is not None or verdict is FailureAction.IGNORE:
            return  # it failed because it was stopped, or too late to matter
        if verdict is FailureAction.RETRY:
            log.warning(
                "Task status [RETRY]\t[%s@%s] attempt %d failed: %s: %s",
                *(self.workflow_id, node.task_id, node.attempts, failure.type, failure.message),
            )
            self._retried[node.task_id] = FailedAttempt(
                task_id=node.task_id,
                attempt=node.attempts,
                error=f"{failure.type}: {failure.message}"[:_MAX_ERROR_LENGTH],
            )
            self._retry(state, node, 0 if failure.system else node.wait_s(random.random()))
        elif verdict is FailureAction.CATCH:
            self._catch(state, node, failure, raised)
        else:
            record = TaskRecord(
                task_id=node.task_id,
                times=raised.times if raised else None,
                result=Result(form=Form.CAUGHT_ERROR, inline=exception),
                is_failure=True,
                failure=failure,
            )
            self._commit(record if exception else None, lambda: None)
            self._end(Outcome(failure=failure, exception=exception))

    def _retry(self, state: _State, node: Node, wait_s: float) -> None:
        if not wait_s:
            state.schedule.retry(node)
            return

        def due() -> None:
            if state.timers.pop(node, None) is not None:
                state.schedule.retry(node)

        loop = asyncio.get_running_loop()
        state.timers[node] = loop.call_later(wait_s, self._queue.put_nowait, due)

    def _catch(
        self, state: _State, node: Node, failure: TaskFailure, raised: Raised | None
    ) -> None:
        catcher = state.schedule.catcher(node)
        if catcher is None:
            raise RuntimeError(f"nobody catches for {node.task_id}")  # a bug in the scheduler
        result = Result(form=Form.CAUGHT_ERROR, inline=raised.exception if raised else b"")

        def then() -> None:
            resolved, useless = state.schedule.caught(catcher, result)
            for other in useless:
                if (attempt := state.attempts.get(other)) is not None:
                    attempt.is_useless = True
                    self._runner.stop(attempt)
            self._tell(resolved)

        times = raised.times if raised and catcher is node else None
        record = TaskRecord(
            task_id=catcher.task_id,
            times=times,
            result=result,
            failure=failure,
            fingerprints=catcher.made_of(),
        )
        self._commit_result(state, catcher, record, then)

    def _inputs_lost(self, state: _State, node: Node, lost: InputsLost) -> None:
        upstream = [node.upstream[position] for position in lost.positions]
        names = [other.task_id for other in upstream]
        log.warning(
            "Workflow %s: %s Task %s takes the results of %s, which run again.",
            *(self.workflow_id, lost.reason, node.task_id, names),
        )
        self._rebuilds += 1
        if self._rebuilds > MAX_REBUILDS:
            failure = TaskFailure(
                task_id=node.task_id,
                type="InputsLost",
                message=f"{lost.reason} These are results of {names}, which have run again "
                f"{MAX_REBUILDS} times.",
                traceback="",
                system=True,
            )
            self._end(Outcome(failure=failure))
            return
        for other in upstream:
            if other.result is not None and other.result.blob is not None:
                record = TaskRecord(
                    task_id=other.task_id, result=Result(blob=other.result.blob), is_revoked=True
                )
                self._commit(record, lambda: None)
        state.must_rebuild = True

    # ---- committing

    def _commit_result(
        self, state: _State, node: Node, record: TaskRecord, then: Callable[[], None]
    ) -> None:
        keeps = node.checkpoint or node.is_output
        if node.is_output and not node.is_found and record.result is not None:
            # A reader could not follow the continuations to it, so it gets the output's own id.
            output_id, result = state.schedule.output.task_id, node.as_output(record.result)
            made_of = state.schedule.output.made_of()
            record = record._replace(task_id=output_id, result=result, fingerprints=made_of)
        self._commit(record if keeps else None, then)

    def _commit(self, record: TaskRecord | None, then: Callable[[], None]) -> None:
        if record is None and not self._commits.is_busy:
            then()
        else:
            self._commits.add(record, then)

    def _written(self, batch: Sequence[Commit], error: BaseException | None) -> None:
        if isinstance(error, OwnershipLostError):
            self._end(Outcome(stopped=Stop.FENCED, lost=error))
            return
        if error is not None:
            log.error("Workflow %s: a checkpoint can't be written: %s", self.workflow_id, error)
            failure = TaskFailure(
                task_id=next(commit.record.task_id for commit in batch if commit.record),
                type=type(error).__name__,
                message=str(error),
                traceback="",
                system=True,
            )
            self._end(Outcome(failure=failure))
            return
        records = [commit.record for commit in batch if commit.record]
        self._log_status(
            "SUCCESSFUL",
            *(one.task_id for one in records if not (one.is_failure or one.is_revoked)),
        )
        for commit in batch:
            commit.then()

    # ---- ending

    def _end(self, outcome: Outcome) -> None:
        fenced = outcome.stopped is Stop.FENCED
        if self._outcome is not None and not fenced:
            return
        self._outcome = outcome
        if self._state is not None:
            for timer in self._state.timers.values():
                timer.cancel()
            self._state.timers.clear()
        self._stop_attempts()

    def _stop_attempts(self) -> None:
        for attempt in list(self._state.attempts.values()) if self._state else ():
            self._runner.stop(attempt)

    def _log_status(self, status: str, *task_ids: str) -> None:
        # In one piece: what goes before a line takes longer than a short task.
        lines = (f"Task status [{status}]\t[{self.workflow_id}@{name}]" for name in task_ids)
        if text := "\n".join(lines):
            log.info("%s", text)
