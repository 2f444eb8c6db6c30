"""Owns all workflows of a cluster: claims, admits, runs, stops and answers for them.

Plain asyncio. The Ray actor around it is :mod:`.runtime.service.actor`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    LeaseLostError,
    OwnershipLostError,
    StorageError,
    said_by,
)
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.admission import Admission
from airflow_provider_rayworkflow.workflow.manager.cache_keeper import MAX_CACHE_BYTES, CacheKeeper
from airflow_provider_rayworkflow.workflow.manager.claim_watch import ClaimWatch
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.http_events import HttpEvents
from airflow_provider_rayworkflow.workflow.manager.inactive import InactiveWorkflows
from airflow_provider_rayworkflow.workflow.manager.index_keeper import IndexKeeper
from airflow_provider_rayworkflow.workflow.manager.lease_keeper import LeaseKeeper
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.log_writer import MAX_LOG_BYTES, LogWriter
from airflow_provider_rayworkflow.workflow.manager.pending_cancel import requesting_cancel
from airflow_provider_rayworkflow.workflow.manager.pruner import Pruner
from airflow_provider_rayworkflow.workflow.manager.queries import Queries
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals, Registry
from airflow_provider_rayworkflow.workflow.manager.running_attempts import RunningAttempts
from airflow_provider_rayworkflow.workflow.manager.runs import WorkflowRuns
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.manager.stop_requests import StopRequests
from airflow_provider_rayworkflow.workflow.manager.submission_reader import (
    Builder,
    SubmissionReader,
)
from airflow_provider_rayworkflow.workflow.model.event_posts import EventSettings
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.outcome import Stop
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Runner
from airflow_provider_rayworkflow.workflow.storage.leases import (
    LEASE_TTL_S,
    Process,
    Tenure,
    since_boot,
)
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

Json = dict[str, Any]


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
    :param cluster: the id that submissions for this manager carry, with its ``package_version``.
    :param builder: makes the graphs of submissions; None for a manager that takes none.
    :param max_log_bytes: how much is kept of what the tasks of a workflow print and log.
    :param max_cache_bytes: how large the storage's cache may become; 0 for none.
    :ivar attempts: what workers tell and ask of those that they run.
    :ivar pruner: deletes what a retention does not keep.
    :ivar queries: what callers ask.
    :ivar runs: the runs of the workflows that it holds.
    :ivar submissions: finds what to run, if there is a builder.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _watching: Sequence[asyncio.Task[None]] = ()

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
        cluster: str = "",
        builder: Builder | None = None,
        max_log_bytes: int = MAX_LOG_BYTES,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self.manager_id, self._locks = manager_id, Locks()
        self.tenure = Tenure(LEASE_TTL_S, elapsed)
        known = self._known = Registry(
            store, manager_id=manager_id, clock=clock, tenure=self.tenure, intervals=intervals
        )
        self.logs = LogWriter(known, max_bytes=max_log_bytes)
        late = StatusBacklog(known, self._locks)
        self.runs = WorkflowRuns(
            known, runner, limits=limits, late=late, metrics=metrics or Metrics(), logs=self.logs
        )
        self._admission = Admission(known, locks=self._locks, slots=self.runs.slots, late=late)
        self.queries = Queries(known, resume=self.resume)
        reception = self.queries.reception
        self.http_events = HttpEvents(
            store, known.threads, reception=reception, settings=event_settings, clock=clock
        )
        self.inactive = InactiveWorkflows(known, locks=self._locks, http_events=self.http_events)
        self._claim_watch = ClaimWatch(known, on_lost=self._fence_one)
        self._requests = StopRequests(known, stop=self._stop_as_requested)
        self._lease = LeaseKeeper(
            known, limits, actor_id, process=process, version=package_version, cluster=cluster
        )
        pruner = self.pruner = Pruner(known, self._lease, forget=self.http_events.forget)
        takes = (cluster, package_version)
        self.submissions = SubmissionReader(
            known, self._admission, builder, takes=takes, pruner=pruner, set_limits=self.set_limits
        )
        self.attempts, self._index = RunningAttempts(known), IndexKeeper(known)
        self._cache_keeper = CacheKeeper(known, max_bytes=max_cache_bytes)

    # ---- the manager itself

    async def start(self) -> None:
        """Take the lease, and recover what an earlier manager of the same actor owned.

        Nothing may be claimed before.

        :raises DataSaveError: when the storage can't be written.
        """
        self._loop = asyncio.get_running_loop()
        await self._known.in_thread(self._known.store.bytes.check_writable)
        version = await self._known.in_thread(self._known.store.index.last_version)
        await self._known.changes.open(version)
        await self._known.in_thread(self.renew_lease)
        await self._recover()
        keepers = (self._index, self.pruner, self._cache_keeper)
        parts = (self._requests, self.submissions, *keepers)
        self._watching = [asyncio.create_task(part.watch()) for part in parts]

    async def _recover(self) -> None:
        earlier = await self._known.in_thread(self._lease.earlier)
        if not earlier:
            return
        self.runs.limits.begin_full()
        dead = {lease.manager_id for lease in earlier}
        self._known.store.leases.watch.know_dead(dead)
        latest = max(earlier, key=lambda lease: lease.renewed_at)
        self.set_limits(Limits(**latest.limits))
        self.pruner.set_retention(latest.retention, by="the manager before this one")
        held = await self._known.in_thread(self._known.list_held_by, dead)
        for workflow_id in held:
            log.info("Workflow %s is recovered after a restart of the manager", workflow_id)
        await self._admission.resume_all(held, is_recovery=True)
        await self._known.in_thread(self._lease.delete_earlier, earlier)

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

    def count_held(self) -> int:
        """How many workflows this manager runs, has in its queue, or is about to start."""
        return len(self._known.live) + self.submissions.count_taking

    def set_limits(self, limits: Limits) -> bool:
        """Set the limits that are still unset; True if that changed any.

        They survive a restart of the manager with the next renewal of the lease.

        :raises ValueError: when other limits are in force.
        """
        has_changed = self.runs.slots.set_limits(limits)
        self._lease.set_limits(self.runs.slots.limits)
        return has_changed

    async def close(self) -> None:
        """Suspend everything and give the lease back."""
        for watching in self._watching:
            watching.cancel()
        await self.pruner.close()
        await self.submissions.close()
        self._claim_watch.close()
        for live in list(self._known.live.values()):
            self.runs.stop(live, Stop.SUSPEND)
        ended = [live.ended for live in self._known.live.values()]
        await asyncio.gather(*ended, return_exceptions=True)
        await self._known.cache.close()
        try:
            await self._known.changes.close()
        except StorageError as exc:  # the statuses say the same
            log.warning("The change log could not be closed: %s", said_by(exc))
        await self._known.in_thread(self._known.store.leases.delete, self._known.manager_id)
        await self._index.close()

    def fence(self) -> None:
        """Stop all work without writing anything: the lease could not be renewed in time."""
        self.tenure.end()
        for live in list(self._known.live.values()):
            self.runs.stop(live, Stop.FENCED)

    def _fence_one(self, live: HeldWorkflow, lost: OwnershipLostError) -> None:
        self.runs.stop(live, Stop.FENCED, lost=lost)

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
        Errors are those of :func:`.api.run_async`.
        """
        parsed = await self._known.read_graph(graph)
        await self._admission.begin(workflow_id, parsed, user_metadata, options or StartOptions())

    async def resume(
        self,
        workflow_id: str,
        **options: Any,
    ) -> None:
        """Go on with a workflow from its stored graph and checkpoints.

        :param options: of :class:`StartOptions`; errors are those of :func:`.api.resume_async`.

        :raises CorruptedDataError: when its stored graph is damaged.
        """
        await self._admission.begin(workflow_id, None, {}, StartOptions(**options))

    async def resume_all(self, *, include_failed: bool) -> list[tuple[str, Exception | None]]:
        """Resume every RESUMABLE workflow, and the FAILED ones if asked for.

        Those that were running come first and so get the slots. Returns each id with the error
        that kept it from being resumed, or None.
        """
        failed = {WorkflowStatus.FAILED} if include_failed else set()
        wanted = {WorkflowStatus.RESUMABLE, *failed}
        found = await self._known.in_thread(self._known.list_with_status, wanted)
        return await self._admission.resume_all([workflow_id for workflow_id, _ in found])

    # ---- stopping

    async def cancel(self, workflow_id: str) -> None:
        """Stop a workflow for good. Returns when its tasks are stopped and the status is written.

        Tasks that ask for time to stop get it, and those that clean up after a cancel run; a second call
        meanwhile, or a suspend, stops them, too.

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
        if request != live.pending_cancel:
            live.stopped_by = request.token
            self.runs.stop(live, Stop(request.how))
        await asyncio.wait([live.ended])
        is_final = not (live.record.status.is_active or live.record.status.can_be_resumed)
        return live.lost is None and (request.how == "suspend" or is_final)

    async def _stop_and_wait(self, workflow_id: str, reason: Stop) -> None:
        live = self._known.live.get(workflow_id)
        if live is not None and live.stop is not None:
            self.runs.stop(
                live, reason
            )  # a second one: its tasks get no more time, nor those that clean up
        async with self._locks.of(workflow_id):
            live = self._known.live.get(workflow_id)
            if live is not None:
                async with requesting_cancel(self._known, live, reason):
                    self.runs.stop(live, reason)
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
