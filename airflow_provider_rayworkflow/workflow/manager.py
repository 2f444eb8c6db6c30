"""Owns all workflows of a cluster: claims, admits, runs, stops and answers for them.

Plain asyncio. The Ray actor around it is :mod:`.runtime.actor`.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from airflow_provider_rayworkflow.workflow import unowned
from airflow_provider_rayworkflow.workflow.concurrency import Limits
from airflow_provider_rayworkflow.workflow.exceptions import (
    OwnershipLostError,
    StorageError,
    WorkflowAlreadyExistsError,
    WorkflowError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.executor import Executor, Outcome, Runner, Stop
from airflow_provider_rayworkflow.workflow.graph import Graph, allocate_ids
from airflow_provider_rayworkflow.workflow.http_events import HttpEvents
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.metadata import describe_task, describe_workflow
from airflow_provider_rayworkflow.workflow.model import (
    OnExisting,
    Result,
    StatusRecord,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus, check_transition
from airflow_provider_rayworkflow.workflow.stop_requests import StopRequests
from airflow_provider_rayworkflow.workflow.storage.handover import StopRequest
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S, Lease, Process
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Claim,
    Found,
    HonestStatuses,
    WorkflowStore,
    list_workflows,
)

log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

#: How often the storage is asked about a workflow that another manager runs.
WATCH_INTERVAL_S = 0.5

_STORAGE_THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How a workflow or task ended, for the side that may unpickle.

    :ivar result: the result, or None for one of the others.
    :ivar failure: why it failed; ``exception`` is the encoded exception, ``b""`` if unknown.
    :ivar status: of the workflow.
    """

    workflow_id: str
    status: WorkflowStatus
    result: Result | None = None
    failure: TaskFailure | None = None
    exception: bytes = b""


@dataclass(slots=True, eq=False)
class _Live:
    """A workflow that this manager holds."""

    claim: Claim
    graph: Graph
    record: StatusRecord
    executor: Executor | None = None
    stop: Stop | None = None
    stopped_by: str = ""
    task: asyncio.Task[None] | None = None
    ended: asyncio.Future[Output] = field(default_factory=asyncio.Future)
    waiters: dict[str, list[asyncio.Future[Result]]] = field(
        default_factory=lambda: defaultdict(list)
    )


class Manager:
    """All workflows of one cluster on one storage.

    :param manager_id: unique for each start of a manager.
    :param actor_id: stays the same when the manager is restarted in place; then it recovers
        what it owned before.
    :param clock: seconds since the epoch.
    :param process: with whose end the manager ends; by default this one.
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
        process: Process | None = None,
    ) -> None:
        self._store = store
        self._runner = runner
        self._manager_id = manager_id
        self._limits = limits
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._pending: deque[_Live] = deque()
        self._dead: Collection[str] = ()  # earlier managers of this actor
        self._running = 0
        self._entering = 0  # workflows on their way into the queue
        self._locks: dict[str, _CountedLock] = {}
        self._threads = ThreadPoolExecutor(_STORAGE_THREADS, thread_name_prefix="storage")
        self.http_events = HttpEvents(store, self._threads)
        self._requests = StopRequests(
            store,
            self._threads,
            manager_id=manager_id,
            held=lambda: {name: live.claim.base_epoch for name, live in self._live.items()},
            stop=self._stop_as_requested,
            clock=clock,
        )
        self._watching: asyncio.Task[None] | None = None
        self._lease = Lease(
            manager_id=manager_id,
            actor_id=actor_id,
            process=process or Process.current(),
            renewed_at=0,
            ttl_s=LEASE_TTL_S,
            package_version=package_version,
            limits=limits.to_json(),
        )

    # ---- the manager itself

    async def start(self) -> None:
        """Take the lease, and recover what an earlier manager of the same actor owned.

        Nothing may be claimed before.

        :raises DataSaveError: when the storage can't be written.
        """
        await self._in_thread(self._store.bytes.check_writable)
        await self._in_thread(self.renew_lease)
        await self._recover()
        self._watching = asyncio.create_task(self._requests.watch())

    async def _recover(self) -> None:
        leases = await self._in_thread(self._store.list_leases)
        self._dead = {
            lease.manager_id
            for lease in leases
            if lease.actor_id == self._lease.actor_id and lease.manager_id != self._manager_id
        }
        if not self._dead:
            return
        latest = max(leases, key=lambda lease: (lease.manager_id in self._dead, lease.renewed_at))
        self.set_limits(Limits(**latest.limits))
        for workflow_id, _, key in await self._in_thread(self._list):
            if key.manager_id in self._dead and key.status.is_active:
                log.info("Workflow %s is recovered after a restart of the manager", workflow_id)
                await self._try_resume(workflow_id)
        for manager_id in self._dead:
            await self._in_thread(self._store.delete_lease, manager_id)

    @property
    def storage_weakness(self) -> str:
        """See :attr:`~.storage.bytes.ByteStore.weakness`."""
        return self._store.bytes.weakness

    def renew_lease(self) -> None:
        """Write the lease anew; it is good for its time from before this call. Blocks."""
        self._lease = replace(self._lease, renewed_at=self._clock())
        self._store.write_lease(self._lease)

    def set_limits(self, limits: Limits) -> bool:
        """Set limits that nobody has set yet; True if that changed something.

        They survive a restart of the manager with the next renewal of the lease.

        :raises ValueError: when other limits are in force.
        """
        before, self._limits = self._limits, self._limits.merged(limits)
        self._lease = replace(self._lease, limits=self._limits.to_json())
        self._start_pending()
        return before != self._limits

    async def close(self) -> None:
        """Suspend everything and give the lease back."""
        if self._watching is not None:
            self._watching.cancel()
        for live in list(self._live.values()):
            self._stop(live, Stop.SUSPEND)
        await asyncio.gather(*(live.ended for live in list(self._live.values())))
        await self._in_thread(self._store.delete_lease, self._manager_id)

    def fence(self) -> None:
        """Stop all work without writing anything: the lease could not be renewed in time."""
        for live in list(self._live.values()):
            self._stop(live, Stop.FENCED)

    # ---- starting

    async def submit(
        self,
        workflow_id: str,
        graph: bytes,
        *,
        user_metadata: Json,
        on_existing: OnExisting = "resume",
    ) -> None:
        """Run a workflow, or attach to it, resume it, or leave it as it is if it has ended well.

        When this returns, the workflow is stored and its fate no longer depends on the caller.

        :raises WorkflowAlreadyExistsError: with ``on_existing="fail"``.
        :raises WorkflowNotResumableError: when it was canceled.
        :raises WorkflowStillActiveError: with ``on_existing="restart"`` of an active one.
        :raises queue.Full: when no slot and no place in the queue is free.
        """
        parsed = await self._in_thread(Graph.from_bytes, graph)
        await self._begin(workflow_id, parsed, user_metadata, on_existing)

    async def resume(self, workflow_id: str) -> None:
        """Go on with a workflow from its stored graph and checkpoints.

        :raises WorkflowNotResumableError: when it does not exist or was canceled.
        :raises CorruptedDataError: when its stored graph is damaged.
        :raises queue.Full: as for :meth:`submit`.
        """
        await self._begin(workflow_id, None, {}, "resume")

    async def resume_all(self, *, include_failed: bool) -> list[tuple[str, Exception | None]]:
        """Resume every RESUMABLE workflow, and the FAILED ones if asked for.

        Those that were running come first and so get the slots. Returns each id with the error
        that kept it from being resumed, None where there was none.
        """
        wanted = {WorkflowStatus.RESUMABLE}
        if include_failed:
            wanted.add(WorkflowStatus.FAILED)
        found = await self._in_thread(self._list)
        return [
            (workflow_id, await self._try_resume(workflow_id))
            for workflow_id, status, _ in found
            if status in wanted and workflow_id not in self._live
        ]

    async def _try_resume(self, workflow_id: str) -> Exception | None:
        try:
            await self.resume(workflow_id)
        except (WorkflowError, queue.Full) as exc:
            log.warning("Workflow %s can't be resumed: %s", workflow_id, exc)
            return exc
        return None

    async def _begin(
        self, workflow_id: str, graph: Graph | None, user_metadata: Json, on_existing: OnExisting
    ) -> None:
        async with self._locked(workflow_id):
            while True:
                if (live := self._live.get(workflow_id)) is not None:
                    _check_existing(workflow_id, live.record.status, on_existing)
                    return
                # The epoch is read before the status: if another manager claims in between, the
                # claim below fails, and we look again.
                epoch = await self._in_thread(self._store.last_epoch, workflow_id)
                stored = await self._in_thread(self._find, workflow_id)
                found = stored.honest_record if stored else None
                if found is None and graph is None:
                    raise WorkflowNotResumableError(workflow_id, reason="It does not exist.")
                if epoch > (found.epoch if found else 0) and await self._is_starting(
                    workflow_id, epoch
                ):
                    await asyncio.sleep(WATCH_INTERVAL_S)
                    continue
                if stored is not None and self._owner_may_live(stored):
                    await asyncio.sleep(WATCH_INTERVAL_S)
                    continue
                if found is not None:
                    _check_existing(workflow_id, found.status, on_existing)
                    if found.status.is_active:
                        return  # another manager runs it
                    if on_existing != "restart":
                        if found.status is WorkflowStatus.SUCCESSFUL:
                            if not await self._in_thread(self._has_lost_output, found):
                                return
                            found = replace(found, status=WorkflowStatus.RESUMABLE)
                        if found.status is WorkflowStatus.CANCELED:
                            raise WorkflowNotResumableError(
                                workflow_id,
                                reason="It was canceled, which is final. Run it under another "
                                'id, or again from the start with on_existing="restart".',
                            )
                        if await self._in_thread(self._obey_pending_cancel, workflow_id):
                            continue
                continued = found if on_existing != "restart" else None
                if await self._claim_and_start(workflow_id, epoch, continued, graph, user_metadata):
                    return

    def _has_lost_output(self, record: StatusRecord) -> bool:
        """True if the output of a successful workflow can't be loaded any more. Blocks.

        What is damaged of it is deleted: then its task counts as not committed and runs again.
        """
        workflow_id = record.workflow_id
        graph = self._store.read_graph(workflow_id, record.epoch)
        claim = self._store.read_claim(workflow_id, record.epoch)
        checkpoints = self._store.read_checkpoints(workflow_id, since_epoch=claim.base_epoch)
        result = checkpoints.result_of(allocate_ids(graph, TaskIds())[-1])
        if result is None:
            for problem in checkpoints.damaged:
                log.warning("Workflow %s: %s Its task runs again.", workflow_id, problem)
            return True
        damage = self._store.find_damage(result)
        if damage is None:
            return False
        log.warning("Workflow %s: %s It is deleted, and its task runs again.", workflow_id, damage)
        self._store.bytes.delete([damage.key])
        return True

    async def _is_starting(self, workflow_id: str, epoch: int) -> bool:
        """True if a live manager has claimed the epoch and not written its status yet."""
        claim = await self._in_thread(self._store.read_claim, workflow_id, epoch)
        if claim.manager_id == self._manager_id:
            return False  # a start of ours that failed
        is_alive = await self._in_thread(self._honest_statuses().is_alive, claim.manager_id)
        return is_alive or self._store.lease_watch.is_doubtful(claim.manager_id)

    def _owner_may_live(self, found: Found) -> bool:
        """True if its owner looks dead by our clock only: then nobody takes it over yet."""
        owner = found.record.manager_id
        is_known = owner == self._manager_id or owner in self._dead
        return found.has_lost_owner and not is_known and self._store.lease_watch.is_doubtful(owner)

    async def _claim_and_start(
        self,
        workflow_id: str,
        epoch: int,
        found: StatusRecord | None,
        graph: Graph | None,
        user_metadata: Json,
    ) -> bool:
        # The slot is taken before anything is awaited, and given back if the start fails.
        can_run = self._limits.can_run(self._running)
        if can_run:
            self._running += 1
        else:
            self._limits.check_can_wait(len(self._pending) + self._entering)
            self._entering += 1
        live = None
        try:
            live = await self._claim(workflow_id, epoch, found, graph, user_metadata, can_run)
        finally:
            if not can_run:
                self._entering -= 1
            elif live is None:
                self._running -= 1
                self._start_pending()
        if live is None:
            return False
        self._live[workflow_id] = live
        log.info('Workflow job created. [id="%s"]', workflow_id)
        if can_run:
            self._start(live)
        else:
            self._pending.append(live)
            self._start_pending()  # a slot may have become free meanwhile
        return True

    async def _claim(
        self,
        workflow_id: str,
        epoch: int,
        found: StatusRecord | None,
        graph: Graph | None,
        user_metadata: Json,
        can_run: bool,
    ) -> _Live | None:
        status = WorkflowStatus.RUNNING if can_run else WorkflowStatus.PENDING
        check_transition(workflow_id, found.status if found else WorkflowStatus.NONE, status)
        earlier: Claim | None = None
        if found is not None:
            earlier = await self._in_thread(self._store.read_claim, workflow_id, found.epoch)
        to_store = graph
        if graph is None:
            if found is None:
                raise WorkflowNotResumableError(workflow_id, reason="It does not exist.")
            graph = await self._in_thread(self._store.read_graph, workflow_id, found.epoch)
        now = self._clock()
        claim = await self._in_thread(
            lambda: self._store.claim(
                workflow_id,
                after=epoch,
                manager_id=self._manager_id,
                now=now,
                user_metadata=user_metadata,
                graph=to_store,
                continues=earlier,
            )
        )
        if claim is None:
            return None
        record = StatusRecord(
            workflow_id=workflow_id,
            status=status,
            epoch=claim.epoch,
            number=0,
            manager_id=self._manager_id,
            created_at=found.created_at if found else now,
            started_at=now if can_run else None,
            user_metadata=found.user_metadata if found else user_metadata,
            tasks_total=len(graph.tasks),
        )
        await self._in_thread(lambda: self._store.write_status(record, replaces=found))
        if claim.base_epoch == claim.epoch > 1:
            await self._in_thread(self._store.delete_earlier, workflow_id, claim.epoch)
        live = _Live(claim=claim, graph=graph, record=record)
        live.ended.add_done_callback(_retrieve)
        return live

    def _start_pending(self) -> None:
        while self._pending and self._limits.can_run(self._running):
            self._running += 1
            self._start(self._pending.popleft())

    def _start(self, live: _Live) -> None:
        live.task = asyncio.ensure_future(self._run(live))

    # ---- running and ending

    async def _run(self, live: _Live) -> None:
        workflow_id = live.claim.workflow_id
        outcome: Outcome | None = None
        try:
            if live.record.status is WorkflowStatus.PENDING and live.stop is None:
                await self._change_status(live, WorkflowStatus.RUNNING, started_at=self._clock())
            if live.stop is None:
                live.executor = Executor(
                    workflow_id=workflow_id,
                    epoch=live.claim.epoch,
                    base_epoch=live.claim.base_epoch,
                    graph=live.graph,
                    store=self._store,
                    runner=self._runner,
                    threads=self._threads,
                    on_result=lambda task_id, result: _tell_waiters(live, task_id, result),
                )
                outcome = await live.executor.run()
            else:
                outcome = Outcome(stopped=live.stop)
        except Exception as exc:  # one workflow must not take the others along
            log.exception("Workflow %s stopped by an error of its own", workflow_id)
            outcome = Outcome(failure=_system_failure(exc))
        finally:
            self._running -= 1
        await self._finish(live, outcome)
        self._start_pending()

    async def _finish(self, live: _Live, outcome: Outcome) -> None:
        """Write the final status, then tell all who wait; in this order, so that it is true."""
        workflow_id = live.claim.workflow_id
        status, failure = _status_after(outcome), outcome.failure
        if outcome.stopped is not Stop.FENCED:
            try:
                total, done, reused = live.executor.progress if live.executor else (0, 0, 0)
                await self._change_status(
                    live,
                    status,
                    ended_at=None if status is WorkflowStatus.CANCELED else self._clock(),
                    tasks_total=total or live.record.tasks_total,
                    tasks_done=done,
                    tasks_reused=reused,
                    failure=failure,
                    output=outcome.json_output,
                    stopped_by=live.stopped_by if outcome.stopped else "",
                )
            except StorageError as exc:
                log.error("Workflow %s: status %s can't be written: %s", workflow_id, status, exc)
                status, failure = WorkflowStatus.RESUMABLE, _system_failure(exc)
        del self._live[workflow_id]
        self._release_waiters(live, status, failure, outcome)

    def _release_waiters(
        self, live: _Live, status: WorkflowStatus, failure: TaskFailure | None, outcome: Outcome
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
        for futures in live.waiters.values():
            for future in futures:
                if not future.done():
                    future.cancel()

    async def _change_status(self, live: _Live, status: WorkflowStatus, **changes: Any) -> None:
        before = live.record
        check_transition(before.workflow_id, before.status, status)
        record = replace(before, status=status, number=before.number + 1, **changes)
        await self._in_thread(lambda: self._store.write_status(record, replaces=before))
        live.record = record
        log.info("Workflow status [%s]\t[%s]", status, record.workflow_id)

    # ---- stopping

    async def cancel(self, workflow_id: str) -> None:
        """Stop a workflow for good. Returns when its tasks are stopped and the status is written.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it is SUCCESSFUL.
        """
        await self._stop_and_wait(workflow_id, Stop.CANCEL)

    async def suspend(self, workflow_id: str) -> None:
        """Stop a workflow so that it can be resumed. Returns as :meth:`cancel` does.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it has ended; a RESUMABLE one is left as it is.
        """
        await self._stop_and_wait(workflow_id, Stop.SUSPEND)

    async def _stop_as_requested(self, request: StopRequest) -> None:
        live = self._live.get(request.workflow_id)
        if live is not None:
            live.stopped_by = request.token
            self._stop(live, Stop(request.how))
            await asyncio.wait([live.ended])

    async def _stop_and_wait(self, workflow_id: str, reason: Stop) -> None:
        async with self._locked(workflow_id):
            live = self._live.get(workflow_id)
            if live is not None:
                self._stop(live, reason)
                await asyncio.wait([live.ended])
                return
            found = await self._in_thread(self._find, workflow_id)
            if found is None:
                raise WorkflowNotFoundError(workflow_id)
            if found.status.is_active:
                raise WorkflowStillActiveError(reason.value.upper(), workflow_id)
            target = _status_after(Outcome(stopped=reason))
            if found.status is not target:
                await self._in_thread(self._change_unowned, found, target)

    def _change_unowned(self, found: Found, status: WorkflowStatus) -> None:
        unowned.change_status(
            self._store, found, status, manager_id=self._manager_id, now=self._clock()
        )

    def _delete_unowned(self, found: Found) -> None:
        unowned.delete(self._store, found, manager_id=self._manager_id, now=self._clock())

    def _obey_pending_cancel(self, workflow_id: str) -> bool:
        found = self._find(workflow_id)
        return found is not None and unowned.obey_pending_cancel(
            self._store, found, manager_id=self._manager_id, now=self._clock()
        )

    def _stop(self, live: _Live, reason: Stop) -> None:
        live.stop = live.stop or reason
        if live.executor is not None:
            live.executor.stop(live.stop)
        elif live in self._pending:
            self._pending.remove(live)
            self._running += 1  # _run gives it back
            self._start(live)

    def kill_overdue(self, workflow_id: str, task_id: str, epoch: int, attempt: int) -> None:
        """Stop one task whose time is over and that can't be interrupted."""
        live = self._live.get(workflow_id)
        if live is not None and live.executor is not None and live.claim.epoch == epoch:
            live.executor.kill_overdue(task_id, attempt)

    async def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow.

        :raises WorkflowNotFoundError: when there is no such workflow.
        :raises WorkflowStillActiveError: when it is running or pending.
        """
        async with self._locked(workflow_id):
            found = await self._in_thread(self._find, workflow_id)
            if workflow_id in self._live:
                raise WorkflowStillActiveError("DELETE", workflow_id)
            if found is None:
                raise WorkflowNotFoundError(workflow_id)
            await self._in_thread(self._delete_unowned, found)

    # ---- asking

    async def get_status(self, workflow_id: str) -> WorkflowStatus:
        """The honest status.

        :raises WorkflowNotFoundError: when there is no such workflow.
        """
        if (live := self._live.get(workflow_id)) is not None:
            return live.record.status
        found = await self._in_thread(self._read_status, workflow_id)
        if found is None:
            raise WorkflowNotFoundError(workflow_id)
        return found.status

    async def list_all(
        self, statuses: Collection[WorkflowStatus]
    ) -> list[tuple[str, WorkflowStatus]]:
        """Ids and honest statuses of the workflows that have one of these statuses.

        Of the RESUMABLE ones, those that were running come before those that were waiting.
        """
        found = await self._in_thread(self._list)
        return [(workflow_id, status) for workflow_id, status, _ in found if status in statuses]

    async def get_metadata(self, workflow_id: str, task_id: str | None = None) -> Json:
        """See :func:`~.metadata.describe_workflow` and :func:`~.metadata.describe_task`.

        :raises ValueError: when there is no such workflow or task.
        """
        live = self._live.get(workflow_id)
        record = live.record if live else await self._in_thread(self._read_status, workflow_id)
        if record is None:
            raise ValueError(f"No such workflow_id '{workflow_id}'")
        if task_id is None:
            return describe_workflow(record)
        return await self._in_thread(describe_task, self._store, record, task_id)

    async def wait_output(
        self, workflow_id: str, task_id: str | None = None, *, take_over: bool = False
    ) -> Output:
        """Wait until a workflow has ended, or one of its tasks has its result.

        :param take_over: resume it here if the manager that runs it elsewhere dies.
        :raises ValueError: when there is no such workflow, or it ended without such a result.
        """
        while True:
            live = self._live.get(workflow_id)
            if live is not None and task_id is None:
                try:
                    return await asyncio.shield(live.ended)
                except OwnershipLostError:
                    pass
            elif live is not None and task_id is not None:
                output = await self._wait_task(live, task_id)
                if output is not None:
                    return output
            stored = await self._in_thread(self._store.read_status, workflow_id)
            if stored is None:
                raise ValueError(f"No such workflow_id '{workflow_id}'")
            if workflow_id in self._live:
                continue  # it began while we looked
            found = await self._in_thread(self._honest, stored)
            if take_over and stored.status.is_active and not found.status.is_active:
                await self.resume(workflow_id)
                continue
            if not found.status.is_active:
                return await self._in_thread(self._stored_output, found, task_id)
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _wait_task(self, live: _Live, task_id: str) -> Output | None:
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        live.waiters[task_id].append(waiter)
        try:
            held = live.executor.result_of(task_id) if live.executor else None
            stored = held or await self._in_thread(self._stored_result, live.record, task_id)
            if stored is None:
                await asyncio.wait([waiter])
                if waiter.cancelled():
                    return None
                stored = waiter.result()
            return Output(
                workflow_id=live.claim.workflow_id, status=live.record.status, result=stored
            )
        finally:
            live.waiters[task_id].remove(waiter)
            if not live.waiters[task_id]:
                del live.waiters[task_id]

    def _stored_result(self, record: StatusRecord, task_id: str) -> Result | None:
        claim = self._store.read_claim(record.workflow_id, record.epoch)
        checkpoints = self._store.read_checkpoints(record.workflow_id, since_epoch=claim.base_epoch)
        return checkpoints.result_of(task_id)

    def _stored_output(self, record: StatusRecord, task_id: str | None) -> Output:
        workflow_id = record.workflow_id
        claim = self._store.read_claim(workflow_id, record.epoch)
        checkpoints = self._store.read_checkpoints(workflow_id, since_epoch=claim.base_epoch)
        output = Output(workflow_id=workflow_id, status=record.status)
        if task_id is not None:
            result = checkpoints.result_of(task_id)
            if result is None and record.failure is None:
                if checkpoints.damaged:
                    raise checkpoints.damaged[0]
                raise ValueError(
                    f"Cannot load output from task id '{task_id}' in workflow '{workflow_id}'"
                )
            if result is not None:
                return replace(output, result=result)
        if record.status is WorkflowStatus.SUCCESSFUL:
            graph = self._store.read_graph(workflow_id, record.epoch)
            result = checkpoints.result_of(allocate_ids(graph, TaskIds())[-1])
            if result is None and checkpoints.damaged:
                raise checkpoints.damaged[0]
            if result is None:
                raise ValueError(f"Cannot load output from workflow '{workflow_id}'")
            return replace(output, result=result)
        if record.failure is None:
            return output
        failed = checkpoints.failures.get(record.failure.task_id)
        exception = failed.result.inline if failed and failed.result else None
        return replace(output, failure=record.failure, exception=exception or b"")

    def _find(self, workflow_id: str) -> Found | None:
        """What is stored, and the honest status. Blocks."""
        record = self._store.read_status(workflow_id)
        return Found(record=record, status=self._honest(record).status) if record else None

    def _read_status(self, workflow_id: str) -> StatusRecord | None:
        """The stored record, with its honest status. Blocks."""
        found = self._find(workflow_id)
        return found.honest_record if found else None

    def _honest(self, record: StatusRecord) -> StatusRecord:
        status = record.status
        if record.manager_id != self._manager_id:
            status = self._honest_statuses().of(status, record.manager_id)
        elif record.workflow_id not in self._live and status.is_active:
            status = WorkflowStatus.RESUMABLE  # its start or its end failed
        return replace(record, status=status) if status is not record.status else record

    def _honest_statuses(self) -> HonestStatuses:
        return HonestStatuses(self._store, now=self._clock(), dead=self._dead)

    def _list(self) -> list[tuple[str, WorkflowStatus, StatusKey]]:
        """All workflows, with the statuses that this manager knows better than the storage."""
        found = []
        for workflow_id, status, key in list_workflows(self._store, self._honest_statuses()):
            live = self._live.get(workflow_id)
            if live is not None:
                status = live.record.status
            elif key.manager_id == self._manager_id and status.is_active:
                status = WorkflowStatus.RESUMABLE
            found.append((workflow_id, status, key))
        return found

    # ---- plumbing

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _locked(self, workflow_id: str) -> _CountedLock:
        lock = self._locks.get(workflow_id)
        if lock is None:
            lock = self._locks[workflow_id] = _CountedLock(self._locks, workflow_id)
        return lock


class _CountedLock:
    """A lock that leaves its registry when nobody holds it or waits for it."""

    def __init__(self, registry: dict[str, _CountedLock], name: str) -> None:
        self._registry = registry
        self._name = name
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._registry[self._name]


def _check_existing(workflow_id: str, status: WorkflowStatus, on_existing: OnExisting) -> None:
    if on_existing == "fail":
        raise WorkflowAlreadyExistsError(workflow_id, status)
    if on_existing == "restart" and status.is_active:
        raise WorkflowStillActiveError("RESTART", workflow_id)


def _status_after(outcome: Outcome) -> WorkflowStatus:
    if outcome.stopped is Stop.CANCEL:
        return WorkflowStatus.CANCELED
    if outcome.failure is not None and not outcome.failure.system:
        return WorkflowStatus.FAILED
    if outcome.stopped is not None or outcome.failure is not None:
        return WorkflowStatus.RESUMABLE
    return WorkflowStatus.SUCCESSFUL


def _system_failure(exc: Exception) -> TaskFailure:
    return TaskFailure(
        task_id="", type=type(exc).__name__, message=str(exc), traceback="", system=True
    )


def _tell_waiters(live: _Live, task_id: str, result: Result) -> None:
    for waiter in live.waiters.get(task_id, ()):
        if not waiter.done():
            waiter.set_result(result)


def _retrieve(future: asyncio.Future[Output]) -> None:
    # Nobody may be waiting; then asyncio would complain about an error that nobody saw.
    if not future.cancelled():
        future.exception()
