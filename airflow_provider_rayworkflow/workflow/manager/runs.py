"""Runs the workflows that a manager holds, one at a time each, to a status that is stored."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    KeyNotFoundError,
    OwnershipLostError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.execution.executor import Executor
from airflow_provider_rayworkflow.workflow.execution.limit_keeper import LimitKeeper
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow, Output
from airflow_provider_rayworkflow.workflow.manager.log_writer import LogWriter
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.manager.slots import Slots
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.outcome import (
    Outcome,
    Stop,
    status_after,
    system_failure,
)
from airflow_provider_rayworkflow.workflow.model.records import Asker, StatusRecord, TaskFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus, check_transition
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Runner
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_key, status_put
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


class WorkflowRuns:
    """The runs of one manager.

    :param late: takes the final statuses that can't be written.
    :param logs: takes what the tasks print and log.
    :ivar limits: those that their tasks share.
    :ivar slots: starts a run for each workflow that gets a slot.
    """

    def __init__(
        self,
        known: Registry,
        runner: Runner,
        *,
        limits: Limits,
        late: StatusBacklog,
        metrics: Metrics,
        logs: LogWriter,
    ) -> None:
        self._known = known
        self._runner = runner
        self._late, self._metrics, self._logs = late, metrics, logs
        self.limits = LimitKeeper()
        self.slots = Slots(limits, start=self._start, on_counts=metrics.workflows_held)

    def stop(
        self, live: HeldWorkflow, reason: Stop, *, lost: OwnershipLostError | None = None
    ) -> None:
        """Stop a run; it ends soon after. The first reason counts, but nothing is written when the
        manager may not go on.

        :param lost: why it may not.
        """
        is_fenced = reason is Stop.FENCED
        live.lost = live.lost or lost
        live.stop = reason if is_fenced else live.stop or reason
        if live.executor is not None:
            live.executor.stop(live.stop)
        else:
            self.slots.start_at_once(live)

    def waiting(self, asker: Asker | None, workflow_id: str) -> AbstractAsyncContextManager[None]:
        """While this lasts, a worker process waits for a workflow: see :class:`Slots`.

        :param asker: None for any other caller.
        """
        if asker == Asker() and (awaited := self._known.live.get(workflow_id)) is not None:
            awaited.needs_no_slot = True
            self.slots.start_at_once(awaited)
        live = self._known.live.get(asker.workflow_id) if asker else None
        if asker is None or live is None or live.claim.epoch != asker.epoch:
            return nullcontext()
        return self.slots.lent(live)

    def _start(self, live: HeldWorkflow) -> None:
        live.task = asyncio.ensure_future(self._run(live))

    async def _run(self, live: HeldWorkflow) -> None:
        workflow_id = live.claim.workflow_id
        try:
            outcome = await self._run_to_outcome(live)
        except OwnershipLostError as exc:
            outcome = Outcome(stopped=Stop.FENCED, lost=exc)
        except BaseException as exc:  # one workflow must not take the others along
            if _is_being_cancelled() or isinstance(exc, GeneratorExit):
                raise  # with the whole manager: its lease ends
            failure = system_failure(exc)
            log.error(
                "Workflow %s stopped by an error of its own: %s: %s",
                *(workflow_id, failure.type, failure.message),
                exc_info=not isinstance(exc, StorageError),
            )
            is_canceled = live.stop is Stop.CANCEL
            outcome = Outcome(stopped=Stop.CANCEL) if is_canceled else Outcome(failure=failure)
        finally:
            self.slots.free(live)
        try:
            await self._finish(live, outcome)
        except Exception:
            log.exception("Workflow %s: its end could not be told", workflow_id)
        finally:
            self._known.live.pop(workflow_id, None)
            if not live.ended.done():
                live.ended.cancel()
            self.slots.start_pending()

    async def _run_to_outcome(self, live: HeldWorkflow) -> Outcome:
        if live.record.status is WorkflowStatus.PENDING and live.stop is None:
            await self._change_status(live, WorkflowStatus.RUNNING, started_at=self._known.clock())
        if live.stop is not None:
            return Outcome(stopped=live.stop)
        live.log = self._logs.of_run(live.claim, live.ownership)
        live.executor = Executor(
            claim=live.claim,
            graph=live.graph,
            store=self._known.store,
            runner=self._runner,
            files=live.files,
            threads=self._known.threads,
            writes=self._known.writes,
            guard=live.ownership,
            on_result=live.tell_waiters,
            metrics=self._metrics,
            clock=self._known.clock,
            known=live.known,
            on_remark=live.log.remark,
            cache=self._known.cache,
            limits=self.limits,
        )
        return await self._run_and_report(live, live.executor)

    async def _run_and_report(self, live: HeldWorkflow, executor: Executor) -> Outcome:
        has_ended = asyncio.Event()
        reporting: list[asyncio.Task[None]] = []

        def report() -> None:  # a run that ends sooner reports none
            reports = self._report_progress(live, executor, has_ended)
            reporting.append(asyncio.ensure_future(reports))

        interval_s = self._known.intervals.progress_s
        timer = asyncio.get_running_loop().call_later(interval_s, report)
        try:
            return await executor.run()
        finally:
            timer.cancel()
            # A write that is under way comes to its end before the one of the final status.
            has_ended.set()
            for task in reporting:
                await task
            if live.log is not None:
                await live.log.close()

    async def _report_progress(
        self, live: HeldWorkflow, executor: Executor, has_ended: asyncio.Event
    ) -> None:
        while not has_ended.is_set() and live.stop is None:
            await self._write_progress(live, executor)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._known.intervals.progress_s):
                    await has_ended.wait()

    async def _write_progress(self, live: HeldWorkflow, executor: Executor) -> None:
        try:
            record = _with_progress(live.record, executor, self._known.clock())
            if record == live.record:
                return
            await self._known.writes.put(
                lambda: status_put(record, signing=self._known.store.signing),
                guard=live.ownership,
            )
        except OwnershipLostError as exc:
            self.stop(live, Stop.FENCED, lost=exc)
        except Exception as exc:  # the final status matters, and is tried again
            log.warning(
                "Workflow %s: its progress can't be written: %s", live.claim.workflow_id, exc
            )
        else:
            live.record = record

    async def _finish(self, live: HeldWorkflow, outcome: Outcome) -> None:
        """Write the final status, then tell all who wait; in this order, so that it is true.

        Every waiter gets an answer, also after an error here: a status that can't be written now is
        left to :class:`StatusBacklog`.
        """
        live.is_ending = True  # what starts now is no part of this run
        status, failure = status_after(outcome), outcome.failure
        live.lost = live.lost or outcome.lost
        try:
            if outcome.stopped is not Stop.FENCED:
                await self._write_end(live, outcome, status)
        except OwnershipLostError as exc:
            live.lost = exc
            outcome = Outcome(stopped=Stop.FENCED)
        except Exception as exc:
            status, failure = self._write_later(live, status, exc)
        if outcome.stopped is Stop.FENCED:
            await self._give_up(live)
        else:
            self._report_end(live, status)
        self._known.live.pop(live.claim.workflow_id, None)
        self._tell_all(live, status, failure, outcome)

    async def _write_end(
        self, live: HeldWorkflow, outcome: Outcome, status: WorkflowStatus
    ) -> None:
        total, done, reused = live.executor.counts if live.executor else (0, 0, 0)
        await self._change_status(
            live,
            status,
            failure=outcome.failure,
            failed_tasks=outcome.failed_tasks,
            output=outcome.json_output,
            reuse=live.executor.reuse if live.executor else None,
            failed_attempts=live.executor.failed_attempts if live.executor else {},
            ended_at=None if status is WorkflowStatus.CANCELED else self._known.clock(),
            tasks_total=total or live.record.tasks_total,
            tasks_done=done,
            tasks_reused=reused,
            stopped_by=live.stopped_by if outcome.stopped else "",
            progress=None,
        )

    def _write_later(
        self, live: HeldWorkflow, status: WorkflowStatus, exc: Exception
    ) -> tuple[WorkflowStatus, TaskFailure | None]:
        """A final status could not be written: hand the workflow back as soon as that works."""
        if not live.record.status.is_active:
            log.error("Workflow %s has ended, but: %r", live.claim.workflow_id, type(exc))
            return live.record.status, live.record.failure
        workflow_id, failure = live.claim.workflow_id, system_failure(exc)
        log.error(
            "Workflow %s: status %s can't be written: %s",
            *(workflow_id, status, failure.message or failure.type),
        )
        if status is not WorkflowStatus.CANCELED:
            status = WorkflowStatus.RESUMABLE
        live.unwritten = exc
        late = _next(
            live.record,
            status,
            changed_at=self._known.clock(),
            failure=failure,
            ended_at=None if status is WorkflowStatus.CANCELED else self._known.clock(),
            stopped_by=live.stopped_by,
            progress=None,
        )
        self._late.add(late, replaces=live.record)
        return status, failure

    async def _give_up(self, live: HeldWorkflow) -> None:
        """The workflow is another manager's, or deleted. In its place, only word of that is left.

        Nothing is written where another manager may own it: its lease or its claim says so.
        """
        lost = live.lost or OwnershipLostError(live.claim.workflow_id, live.claim.epoch)
        live.lost = lost
        log.error("Workflow %s: %s", live.claim.workflow_id, lost)
        # What it wrote last may have come after a deletion, or after its log was taken over.
        self._known.changes.doubt(quote_id(live.claim.workflow_id))
        if not lost.is_deleted or self._known.tenure.is_over:
            return
        late = _next(
            live.record,
            WorkflowStatus.RESUMABLE,
            changed_at=self._known.clock(),
            failure=system_failure(lost),
        )
        try:
            await self._known.in_thread(_leave_word, self._known.store, live.record, late)
        except Exception as exc:
            log.warning("Workflow %s: that can't be written: %s", late.workflow_id, exc)

    def _report_end(self, live: HeldWorkflow, status: WorkflowStatus) -> None:
        try:
            self._metrics.workflow_ended(replace(live.record, status=status))
        except Exception:  # figures only
            log.exception("Workflow %s: its end could not be counted", live.claim.workflow_id)

    def _tell_all(
        self,
        live: HeldWorkflow,
        status: WorkflowStatus,
        failure: TaskFailure | None,
        outcome: Outcome,
    ) -> None:
        workflow_id = live.claim.workflow_id
        output = Output(
            workflow_id=workflow_id,
            status=status,
            result=outcome.result if status is WorkflowStatus.SUCCESSFUL else None,
            failure=failure,
            exception=outcome.exception,
        )
        if live.ended.done():
            pass
        elif outcome.stopped is Stop.FENCED:
            live.ended.set_exception(live.lost or OwnershipLostError(workflow_id, live.claim.epoch))
        else:
            live.ended.set_result(output)
        live.release_waiters()

    async def _change_status(
        self, live: HeldWorkflow, status: WorkflowStatus, **changes: Any
    ) -> None:
        before = live.record
        record = _next(before, status, changed_at=self._known.clock(), **changes)
        await self._known.writes.put(
            lambda: status_put(record, signing=self._known.store.signing), guard=live.ownership
        )
        live.record = record
        live.replaced.append(status_key(before))
        row = IndexRow.of(record, quote_id(record.workflow_id))
        if status.is_active:
            self._known.changes.note(row)
        else:
            noted = self._known.changes.note_end(row)
            await asyncio.gather(noted, _delete_replaced(self._known, live))
        log.info("Workflow status [%s]\t[%s]", status, record.workflow_id)


async def _delete_replaced(known: Registry, live: HeldWorkflow) -> None:
    deletions = map(known.writes.delete, live.replaced)
    for error in await asyncio.gather(*deletions, return_exceptions=True):
        if error is not None:  # the later status counts, also beside those
            log.warning("Workflow %s: %s", live.claim.workflow_id, error)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _leave_word(store: WorkflowStore, before: StatusRecord, late: StatusRecord) -> None:
    """Write a status in the place of one, if that is still there. Blocks."""
    earlier, latest = status_key(before), store.latest_status(late.workflow_id)
    if latest is None or latest.key != earlier:
        return
    with store.notes.changing([quote_id(late.workflow_id)]):
        put = status_put(late, signing=store.signing)
        store.bytes.put(put.key, put.data)
        try:
            store.bytes.get(earlier, 0, 1)
        except KeyNotFoundError:  # who deletes the workflow has taken it away meanwhile
            earlier = status_key(late)
        store.bytes.delete([earlier])


def _next(before: StatusRecord, status: WorkflowStatus, **changes: Any) -> StatusRecord:
    check_transition(before.workflow_id, before.status, status)
    return replace(before, status=status, number=before.number + 1, **changes)


def _with_progress(record: StatusRecord, executor: Executor, now: float) -> StatusRecord:
    total, done, reused = executor.counts
    progress = executor.attempts.progress(now)
    known = record.progress
    if known is not None and replace(progress, at=known.at) == known:
        progress = known
    return replace(
        record,
        tasks_total=total,
        tasks_done=done,
        tasks_reused=reused,
        progress=progress,
        reuse=executor.reuse,
        failed_attempts=executor.failed_attempts,
    )
