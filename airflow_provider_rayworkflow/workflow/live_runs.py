"""Runs the workflows that a manager holds, one at a time each, to a status that is stored."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

from airflow_provider_rayworkflow.workflow.concurrency import Limits
from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError, StorageError
from airflow_provider_rayworkflow.workflow.executor import Executor
from airflow_provider_rayworkflow.workflow.known_workflows import KnownWorkflows
from airflow_provider_rayworkflow.workflow.late_statuses import LateStatuses
from airflow_provider_rayworkflow.workflow.live import Live, Output
from airflow_provider_rayworkflow.workflow.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.measures import Measures
from airflow_provider_rayworkflow.workflow.model import StatusRecord, TaskFailure
from airflow_provider_rayworkflow.workflow.outcomes import (
    Outcome,
    Stop,
    status_after,
    system_failure,
)
from airflow_provider_rayworkflow.workflow.slots import Slots
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus, check_transition
from airflow_provider_rayworkflow.workflow.storage.workflows import status_key, status_put
from airflow_provider_rayworkflow.workflow.task_runs import Runner

log = get_logger(__name__)

#: How often at most a run writes how far it is; it does only when that has changed.
PROGRESS_INTERVAL_S = 5.0


class LiveRuns:
    """The runs of one manager.

    :param late: takes the final statuses that can't be written.
    :ivar slots: starts a run for each workflow that gets a slot.
    """

    def __init__(
        self,
        known: KnownWorkflows,
        runner: Runner,
        *,
        limits: Limits,
        late: LateStatuses,
        measures: Measures,
    ) -> None:
        self._known = known
        self._runner = runner
        self._late = late
        self._measures = measures
        self.slots = Slots(limits, start=self._start, on_change=measures.workflows_held)

    def stop(self, live: Live, reason: Stop) -> None:
        """Stop a run; it ends soon after. The first reason counts."""
        live.stop = live.stop or reason
        if live.executor is not None:
            live.executor.stop(live.stop)
        else:
            self.slots.start_at_once(live)

    def _start(self, live: Live) -> None:
        live.task = asyncio.ensure_future(self._run(live))

    async def _run(self, live: Live) -> None:
        workflow_id = live.claim.workflow_id
        outcome: Outcome | None = None
        try:
            if live.record.status is WorkflowStatus.PENDING and live.stop is None:
                await self._change_status(
                    live, WorkflowStatus.RUNNING, started_at=self._known.clock()
                )
            if live.stop is None:
                live.executor = Executor(
                    claim=live.claim,
                    graph=live.graph,
                    store=self._known.store,
                    runner=self._runner,
                    files=live.files,
                    threads=self._known.threads,
                    writes=self._known.writes,
                    on_result=live.tell_waiters,
                    measures=self._measures,
                    known=live.known,
                )
                outcome = await self._run_and_report(live, live.executor)
            else:
                outcome = Outcome(stopped=live.stop)
        except Exception as exc:  # one workflow must not take the others along
            log.exception("Workflow %s stopped by an error of its own", workflow_id)
            outcome = Outcome(failure=system_failure(exc))
        finally:
            self.slots.free()
        await self._finish(live, outcome)
        self.slots.start_pending()

    async def _run_and_report(self, live: Live, executor: Executor) -> Outcome:
        has_ended = asyncio.Event()
        reporting: list[asyncio.Task[None]] = []

        def report() -> None:  # nobody does for a run that is over sooner
            reports = self._report_progress(live, executor, has_ended)
            reporting.append(asyncio.ensure_future(reports))

        timer = asyncio.get_running_loop().call_later(PROGRESS_INTERVAL_S, report)
        try:
            return await executor.run()
        finally:
            timer.cancel()
            # A write that is under way comes to its end before the one of the final status.
            has_ended.set()
            for task in reporting:
                await task

    async def _report_progress(
        self, live: Live, executor: Executor, has_ended: asyncio.Event
    ) -> None:
        while not has_ended.is_set() and live.stop is None:
            await self._write_progress(live, executor)
            with suppress(TimeoutError):
                await asyncio.wait_for(has_ended.wait(), PROGRESS_INTERVAL_S)

    async def _write_progress(self, live: Live, executor: Executor) -> None:
        record = _with_progress(live.record, executor, self._known.clock())
        if record == live.record:
            return
        try:
            await self._known.in_thread(self._known.store.rewrite_status, record)
        except StorageError as exc:  # the final status matters, and is tried again
            log.warning("Workflow %s: its progress can't be written: %s", record.workflow_id, exc)
        else:
            live.record = record

    async def _finish(self, live: Live, outcome: Outcome) -> None:
        """Write the final status, then tell all who wait; in this order, so that it is true."""
        workflow_id = live.claim.workflow_id
        status, failure = status_after(outcome), outcome.failure
        if outcome.stopped is not Stop.FENCED:
            total, done, reused = live.executor.progress if live.executor else (0, 0, 0)
            changes: dict[str, Any] = {
                "reuse": live.executor.reuse if live.executor else None,
                "ended_at": None if status is WorkflowStatus.CANCELED else self._known.clock(),
                "tasks_total": total or live.record.tasks_total,
                "tasks_done": done,
                "tasks_reused": reused,
                "stopped_by": live.stopped_by if outcome.stopped else "",
                "progress": None,
            }
            try:
                await self._change_status(
                    live, status, failure=failure, output=outcome.json_output, **changes
                )
            except StorageError as exc:
                log.error("Workflow %s: status %s can't be written: %s", workflow_id, status, exc)
                failure = system_failure(exc)
                if status is not WorkflowStatus.CANCELED:
                    status = WorkflowStatus.RESUMABLE
                live.unwritten = exc
                late = _next(live.record, status, failure=failure, **changes)
                self._late.add(late, replaces=live.record)
            self._measures.workflow_ended(replace(live.record, status=status))
        del self._known.live[workflow_id]
        self._tell_all(live, status, failure, outcome)

    def _tell_all(
        self, live: Live, status: WorkflowStatus, failure: TaskFailure | None, outcome: Outcome
    ) -> None:
        workflow_id = live.claim.workflow_id
        output = Output(
            workflow_id=workflow_id,
            status=status,
            result=outcome.result if status is WorkflowStatus.SUCCESSFUL else None,
            failure=failure,
            exception=outcome.exception,
        )
        if outcome.stopped is Stop.FENCED:
            live.ended.set_exception(OwnershipLostError(workflow_id, live.claim.epoch))
        else:
            live.ended.set_result(output)
        live.release_waiters()

    async def _change_status(self, live: Live, status: WorkflowStatus, **changes: Any) -> None:
        before = live.record
        record = _next(before, status, **changes)
        await self._known.writes.put(lambda: status_put(record, signing=self._known.store.signing))
        live.record = record
        live.replaced.append(status_key(before))
        if not status.is_active:
            await asyncio.gather(*map(self._known.writes.delete, live.replaced))
        log.info("Workflow status [%s]\t[%s]", status, record.workflow_id)


def _next(before: StatusRecord, status: WorkflowStatus, **changes: Any) -> StatusRecord:
    check_transition(before.workflow_id, before.status, status)
    return replace(before, status=status, number=before.number + 1, **changes)


def _with_progress(record: StatusRecord, executor: Executor, now: float) -> StatusRecord:
    total, done, reused = executor.progress
    progress = executor.activity(now)
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
    )
