"""Owns all workflows of a cluster: claims, admits, runs, stops and answers for them.

Plain asyncio. The Ray actor around it is :mod:`.runtime.service.actor`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    LeaseLostError,
    text_of,
)
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.admission import Admission
from airflow_provider_rayworkflow.workflow.manager.claim_watch import ClaimWatch
from airflow_provider_rayworkflow.workflow.manager.http_events import HttpEvents, Reception
from airflow_provider_rayworkflow.workflow.manager.inactive import InactiveWorkflows
from airflow_provider_rayworkflow.workflow.manager.lease_keeper import LeaseKeeper
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.queries import Queries
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals, Registry
from airflow_provider_rayworkflow.workflow.manager.runs import WorkflowRuns
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.manager.stop_requests import StopRequests
from airflow_provider_rayworkflow.workflow.model.event_posts import EventSettings
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.outcome import Stop
from airflow_provider_rayworkflow.workflow.model.records import Asker, RunningTask, StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Runner
from airflow_provider_rayworkflow.workflow.storage.leases import (
    LEASE_TTL_S,
    Lease,
    Process,
    Tenure,
    since_boot,
)
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

Json = dict[str, Any]

# A smaller graph is read at once: that takes less than to hand it to a thread.
_SMALL_GRAPH_BYTES = 16 * 1024


class Manager:
    """All workflows of one cluster on one storage.

    :param manager_id: unique for each start of a manager.
    :param actor_id: stays the same when the manager is restarted in place; then it recovers
        what it owned before.
    :param clock: seconds since the epoch; decides nothing about owners.
    :param elapsed: seconds that never jump, and that count while the machine sleeps.
    :param process: with whose end the manager ends; by default this one.
    :param metrics: told what goes on; by default nothing is measured.
    :param event_settings: how HTTP events are taken.
    :param intervals: how often it looks at the storage, and writes to it.
    :ivar queries: what callers ask.
    """

    def __init__(
        self,
        *,
        store: WorkflowStore,
        runner: Runner,
        manager_id: str,
        actor_id: str,
        limits: Limits,
        package_version: str = "",
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = since_boot,
        process: Process | None = None,
        metrics: Metrics | None = None,
        event_settings: EventSettings | None = None,
        intervals: Intervals | None = None,
    ) -> None:
        self.manager_id = manager_id
        self.tenure = Tenure(LEASE_TTL_S, elapsed)
        known = self._known = Registry(
            store, manager_id=manager_id, clock=clock, tenure=self.tenure, intervals=intervals
        )
        self._locks = Locks()
        late = StatusBacklog(known, self._locks)
        self._runs = WorkflowRuns(
            known, runner, limits=limits, late=late, metrics=metrics or Metrics()
        )
        self._admission = Admission(known, locks=self._locks, slots=self._runs.slots, late=late)
        self.queries = Queries(known, resume=self.resume)
        self.http_events = HttpEvents(
            store, known.threads, reception=self._reception, settings=event_settings, clock=clock
        )
        self.inactive = InactiveWorkflows(known, locks=self._locks, http_events=self.http_events)
        self._claim_watch = ClaimWatch(
            known, on_lost=lambda live, exc: self._runs.stop(live, Stop.FENCED, lost=exc)
        )
        self._requests = StopRequests(known, stop=self._stop_as_requested)
        self._watching: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        lease = Lease(
            manager_id=manager_id,
            actor_id=actor_id,
            process=process or Process.current(),
            renewed_at=0,
            package_version=package_version,
            limits=limits.to_json(),
        )
        self._lease = LeaseKeeper(known, lease)

    # ---- the manager itself

    async def start(self) -> None:
        """Take the lease, and recover what an earlier manager of the same actor owned.

        Nothing may be claimed before.

        :raises DataSaveError: when the storage can't be written.
        """
        self._loop = asyncio.get_running_loop()
        await self._known.in_thread(self._known.store.bytes.check_writable)
        await self._known.in_thread(self.renew_lease)
        await self._recover()
        self._watching = asyncio.create_task(self._requests.watch())

    async def _recover(self) -> None:
        earlier = await self._known.in_thread(self._lease.earlier)
        if not earlier:
            return
        dead = {lease.manager_id for lease in earlier}
        self._known.store.leases.watch.know_dead(dead)
        latest = max(earlier, key=lambda lease: lease.renewed_at)
        self.set_limits(Limits(**latest.limits))
        for workflow_id, _, key in await self._known.in_thread(self._known.list_all):
            if key.manager_id in dead and key.status.is_active:
                log.info("Workflow %s is recovered after a restart of the manager", workflow_id)
                await self._try_resume(workflow_id)
        await self._known.in_thread(self._lease.delete_earlier, earlier)

    @property
    def storage_weakness(self) -> str:
        """What the storage can't guarantee, for people; ``""`` for nothing (:attr:`ByteStore.weakness`)."""
        return self._known.store.bytes.weakness

    def renew_lease(self) -> None:
        """Write the lease anew; it is good for its time from before this call. Blocks.

        Then the claims of what this manager holds are looked at, in the background.

        :raises LeaseLostError: when that comes too late: others may have decided that this
            manager is dead. It is fenced then, and another one must take its place.
        :raises StorageError: when it can't be written.
        """
        try:
            self._lease.renew()
        except LeaseLostError:
            self._in_loop(self.fence)
            raise
        self._in_loop(self._claim_watch.begin_to_look)

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def set_limits(self, limits: Limits) -> bool:
        """Set the limits that are still unset; True if that changed any.

        They survive a restart of the manager with the next renewal of the lease.

        :raises ValueError: when other limits are in force.
        """
        has_changed = self._runs.slots.set_limits(limits)
        self._lease.set_limits(self._runs.slots.limits)
        return has_changed

    async def close(self) -> None:
        """Suspend everything and give the lease back."""
        if self._watching is not None:
            self._watching.cancel()
        self._claim_watch.close()
        for live in list(self._known.live.values()):
            self._runs.stop(live, Stop.SUSPEND)
        ended = [live.ended for live in self._known.live.values()]
        await asyncio.gather(*ended, return_exceptions=True)
        await self._known.in_thread(self._known.store.leases.delete, self._known.manager_id)

    def fence(self) -> None:
        """Stop all work without writing anything: the lease could not be renewed in time."""
        self.tenure.end()
        for live in list(self._known.live.values()):
            self._runs.stop(live, Stop.FENCED)

    # ---- starting

    async def submit(
        self,
        workflow_id: str,
        graph: bytes,
        *,
        user_metadata: Json,
        options: StartOptions | None = None,
    ) -> None:
        """Run a workflow, or attach to it, resume it, or leave it as it is if it has ended well.

        One that has ended well goes on if the graph given now has tasks that have to run, or if it
        is restarted from a task. When this returns, the workflow is stored and its fate no longer depends on the caller.

        :raises WorkflowAlreadyExistsError: with ``on_existing="fail"``.
        :raises WorkflowNotResumableError: when it was canceled.
        :raises WorkflowStillActiveError: when an active one is to be restarted.
        :raises WorkflowChangedError: when tasks have changed that refuse that.
        :raises ValueError: when there is no task to restart from.
        :raises queue.Full: when no slot and no place in the queue is free.
        """
        if len(graph) <= _SMALL_GRAPH_BYTES:
            parsed = Graph.from_bytes(graph)
        else:
            parsed = await self._known.in_thread(Graph.from_bytes, graph)
        await self._admission.begin(workflow_id, parsed, user_metadata, options or StartOptions())

    async def resume(
        self,
        workflow_id: str,
        *,
        from_task: str = "",
        traceparent: str = "",
        is_awaited: bool = False,
    ) -> None:
        """Go on with a workflow from its stored graph and checkpoints.

        :param from_task: run this task again, and all that depend on it.
        :param traceparent: the trace that its tasks' spans join; ``""``: as in the run before.
        :param is_awaited: see :class:`StartOptions`.
        :raises WorkflowStillActiveError: when an active one is to be restarted from a task.
        :raises ValueError: when it has no such task.
        :raises WorkflowNotResumableError: when it does not exist or was canceled.
        :raises CorruptedDataError: when its stored graph is damaged.
        :raises queue.Full: as for :meth:`submit`.
        """
        options = StartOptions(from_task=from_task, traceparent=traceparent, is_awaited=is_awaited)
        await self._admission.begin(workflow_id, None, {}, options)

    async def resume_all(self, *, include_failed: bool) -> list[tuple[str, Exception | None]]:
        """Resume every RESUMABLE workflow, and the FAILED ones if asked for.

        Those that were running come first and so get the slots. Returns each id with the error
        that kept it from being resumed, or None.
        """
        failed = {WorkflowStatus.FAILED} if include_failed else set()
        wanted = {WorkflowStatus.RESUMABLE, *failed}
        found = await self._known.in_thread(self._known.list_all)
        return [
            (workflow_id, await self._try_resume(workflow_id))
            for workflow_id, status, _ in found
            if status in wanted and workflow_id not in self._known.live
        ]

    async def _try_resume(self, workflow_id: str) -> Exception | None:
        try:
            await self.resume(workflow_id)
        except Exception as exc:  # of any kind: the others are resumed
            log.warning("Workflow %s can't be resumed: %s", workflow_id, text_of(exc))
            return exc
        return None

    def waiting(self, asker: Asker | None, workflow_id: str) -> AbstractAsyncContextManager[None]:
        """While this lasts, a worker process waits for a workflow: see :class:`Slots`.

        :param asker: None for any other caller.
        """
        return self._runs.waiting(asker, workflow_id)

    # ---- stopping

    async def cancel(self, workflow_id: str) -> None:
        """Stop a workflow for good. Returns when its tasks are stopped and the status is written.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it is SUCCESSFUL.
        :raises StorageError: when the status can't be written now; that is tried again.
        """
        await self._stop_and_wait(workflow_id, Stop.CANCEL)

    async def suspend(self, workflow_id: str) -> None:
        """Stop a workflow so that it can be resumed. Returns as :meth:`cancel` does.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it has ended; a RESUMABLE one is left as it is.
        """
        await self._stop_and_wait(workflow_id, Stop.SUSPEND)

    async def _stop_as_requested(self, request: StopRequest) -> bool:
        if (live := self._known.live.get(request.workflow_id)) is None:
            return True
        live.stopped_by = request.token
        self._runs.stop(live, Stop(request.how))
        await asyncio.wait([live.ended])
        is_final = not (live.record.status.is_active or live.record.status.can_be_resumed)
        return live.lost is None and (request.how == "suspend" or is_final)

    async def _stop_and_wait(self, workflow_id: str, reason: Stop) -> None:
        async with self._locks.of(workflow_id):
            live = self._known.live.get(workflow_id)
            if live is not None:
                self._runs.stop(live, reason)
                await asyncio.wait([live.ended])
                if live.unwritten is not None:
                    raise live.unwritten
                return
            await self.inactive.end(workflow_id, reason)

    async def take_event(self, workflow_id: str, event_key: str) -> Any:
        """The payload of the next event under the key, for a listener; see :meth:`HttpEvents.take`.

        :raises ValueError: when no event can have the key.
        """
        live = self._known.live.get(workflow_id)
        epoch = live.claim.epoch if live else 0
        return await self.http_events.take(workflow_id, event_key, epoch=epoch)

    async def _reception(self, workflow_id: str) -> Reception:
        """Whether a workflow can get an event."""
        if workflow_id in self._known.live:
            return "open"
        found = await self._known.in_thread(self._known.find_name, workflow_id)
        if found is None:
            return "unknown"
        ended = (WorkflowStatus.SUCCESSFUL, WorkflowStatus.CANCELED)
        return "ended" if found.status in ended else "open"

    def kill_overdue(
        self, workflow_id: str, task_id: str, epoch: int, attempt: int, after_s: float
    ) -> None:
        """Stop one task if it has not ended by then: its time is over, and it can't be interrupted.

        :param after_s: from now, in seconds.
        """
        live = self._known.live.get(workflow_id)
        if live is not None and live.executor is not None and live.claim.epoch == epoch:
            live.executor.kill_overdue(task_id, attempt, after_s)

    def has_begun(self, workflow_id: str, epoch: int, task: RunningTask) -> None:
        """A worker has begun an attempt of a task."""
        live = self._known.live.get(workflow_id)
        if live is not None and live.executor is not None and live.claim.epoch == epoch:
            live.executor.has_begun(task)
