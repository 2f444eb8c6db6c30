"""Begins workflows: looks at what is stored, takes a slot, claims the next epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    OwnershipLostError,
    WorkflowAlreadyExistsError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.local_ray.code_files import with_files_of_now
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.ownership import Ownership
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.manager.slots import Slots
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.code_variables import archives_of
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Tasks
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import StartOptions, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import (
    RUN_AGAIN,
    WorkflowStatus,
    check_transition,
)
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.finished import has_lost_output
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import ids_of
from airflow_provider_rayworkflow.workflow.storage.claims import latest_epoch, next_claim
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile, quote_id
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_earlier
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.statuses import status_key, status_put

log = get_logger(__name__)

Json = dict[str, Any]

# To write a larger graph takes so long that nothing else shall be written with it.
_FEW_TASKS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What is stored under an id.

    :ivar found: None for nothing.
    :ivar epoch: the latest one.
    :ivar files: as they were after the status was read. Only a later claim can have added to them
        since.
    """

    found: StoredWorkflow | None = None
    epoch: int = 0
    files: Sequence[WorkflowFile] = ()

    @property
    def has_new_claim(self) -> bool:
        """True if the latest claim has no status yet."""
        return self.epoch > (self.found.record.epoch if self.found else 0)

    @property
    def has_lost_owner(self) -> bool:
        """True if a manager that is gone was running it, or had it in its queue."""
        return self.found is not None and self.found.has_lost_owner

    @property
    def has_cancel(self) -> bool:
        """True if a cancel was requested. No manager may have been there to obey."""
        return any(file.kind == "cancel" for file in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """A run to claim.

    :ivar seen: what was stored.
    :ivar graph: None for the stored one.
    """

    workflow_id: str
    seen: _Seen
    graph: Graph | None
    user_metadata: Json
    options: StartOptions

    @property
    def continued(self) -> StoredWorkflow | None:
        """What it goes on from, None for nothing."""
        return self.seen.found if self.options.on_existing != "restart" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """The claim, the graph and the status that a start writes.

    :ivar known: ids of the tasks of the graph that it ran before, None if they are not known.
    """

    claim: Claim
    graph: Graph
    record: StatusRecord
    known: list[str] | None


class Admission:
    """How one manager begins workflows.

    :param locks: no two calls about the same workflow are under way at once.
    :param slots: a workflow that is begun is entered there.
    :param late: takes the status of a workflow that was claimed and could not be begun.
    """

    def __init__(self, known: Registry, *, locks: Locks, slots: Slots, late: StatusBacklog) -> None:
        self._known = known
        self._locks = locks
        self._slots = slots
        self._late = late

    async def begin(
        self, workflow_id: str, graph: Graph | None, user_metadata: Json, options: StartOptions
    ) -> None:
        """Run, resume, or attach to a workflow; see :meth:`Manager.submit`.

        :param graph: None for the stored one.
        """
        has_lost, asked = False, options
        async with self._locks.of(workflow_id):
            while True:
                options = asked
                if await _is_held(self._known, workflow_id, options):
                    return
                seen = _Seen()
                if has_lost or not options.is_new:
                    seen = await self._known.in_thread(self._look, workflow_id, has_lost)
                if await self._has_begun(workflow_id, seen, options):
                    if not seen.has_lost_owner:
                        return
                    options = _going_on(options)
                if seen.found is None and graph is None:
                    raise WorkflowNotResumableError(workflow_id, reason="It does not exist.")
                is_starting = seen.has_new_claim and await self._is_starting(
                    workflow_id, seen.epoch
                )
                step = _decide(workflow_id, seen, options, is_starting=is_starting)
                if step is _Step.ATTACH:
                    return
                if step is _Step.WAIT:
                    await asyncio.sleep(self._known.intervals.watch_s)
                    continue
                if step is _Step.CANCEL_OR_START and await self._known.in_thread(
                    self._obey_pending_cancel, seen.found
                ):
                    continue
                start = _Start(
                    workflow_id=workflow_id,
                    seen=seen,
                    graph=graph,
                    user_metadata=user_metadata,
                    options=options,
                )
                if not await self._has_to_run(start):
                    log.info("Workflow %s has nothing to run: its output stays", workflow_id)
                    return
                # A caller that is canceled leaves no claim without a run.
                if await asyncio.shield(asyncio.ensure_future(self._claim_and_start(start))):
                    return
                has_lost = True  # so there is a claim, perhaps of an earlier try of this very call

    def _look(self, workflow_id: str, has_claims: bool) -> _Seen:
        """What is stored. Blocks.

        The status is read before the files: a final one stays as it is until a manager claims the
        next epoch, and the manager that wrote it had committed all before. If another manager claims
        after this look, our own claim fails, and we look again.

        :param has_claims: the workflow has a claim for certain. Without that, and without a status,
            our claim of the first epoch finds out whether there is one.
        """
        store = self._known.store
        while True:
            found = self._known.find(workflow_id)
            if found is None and not has_claims:
                return _Seen()
            if found is not None and found.status.is_active:
                return _Seen(found=found, epoch=found.record.epoch)  # there is nothing to claim
            files = store.list_files(workflow_id)
            epoch, written = latest_epoch(files), found.record.epoch if found else 0
            seen = _Seen(found=found, epoch=max(epoch, written), files=files)
            # Who claims, or whose lease has just ended, may have written a status after our look.
            if epoch <= written and not (found and found.has_lost_owner):
                return seen
            latest = store.latest_status(workflow_id)
            if (latest and latest.key) == (found and status_key(found.record)):
                return seen

    async def _has_begun(self, workflow_id: str, seen: _Seen, options: StartOptions) -> bool:
        """True if a run has begun for the submission that asks: the claim names it and has a status.

        If another manager begins it after this look, our claim of the next epoch fails.
        """
        if not options.submission_id or seen.found is None:
            return False
        try:
            claim = await self._known.in_thread(
                self._known.store.read_claim, workflow_id, seen.epoch
            )
        except (CorruptedDataError, WorkflowNotFoundError):
            return False  # to start over is the way out of that
        if not _is_of(claim, options):
            return False
        record, begun = seen.found.record, claim.submission_epoch
        # The first status of a run that could not begin: see `_write_first_status`.
        is_void = record.number == 0 and record.status is WorkflowStatus.RESUMABLE
        return record.epoch > begun or (record.epoch == begun and not is_void)

    async def _has_to_run(self, start: _Start) -> bool:
        """Whether :meth:`_check_plan` finds work; a new workflow is checked only where tasks may refuse."""
        options = start.options
        plans = start.continued or options.from_task or _may_refuse(start.graph, options)
        return not plans or await self._known.in_thread(self._check_plan, start)

    def _check_plan(self, start: _Start) -> bool:
        """True if there is anything to run, or if only running can tell. Blocks.

        :raises WorkflowChangedError: when tasks refuse what has changed.
        :raises ValueError: when there is no task to restart from.
        """
        found, graph, options, store = (
            start.continued,
            start.graph,
            start.options,
            self._known.store,
        )
        is_over = found is not None and found.status is WorkflowStatus.SUCCESSFUL
        if not (options.from_task or (graph and is_over) or _may_refuse(graph, options)):
            return (
                found is None
                or not is_over
                or has_lost_output(store, found.record, files=start.seen.files)
            )
        plan = make_plan(
            store,
            start.workflow_id,
            found,
            graph,
            on_change=options.on_change,
            from_task=options.from_task,
            files=start.seen.files,
        )
        if graph is not None:
            plan.check()
        if found is None or not is_over or plan.runs:
            return True
        return has_lost_output(store, found.record, files=start.seen.files)

    async def _is_starting(self, workflow_id: str, epoch: int) -> bool:
        """True if a manager that may live has claimed the epoch and not written its status yet."""
        claim = await self._known.in_thread(self._known.store.read_claim, workflow_id, epoch)
        if claim.manager_id == self._known.manager_id:
            return False  # a start of ours that failed
        look = self._known.statuses.look()
        return not await self._known.in_thread(look.may_be_replaced, claim.manager_id)

    async def _claim_and_start(self, start: _Start) -> bool:
        # The slot is taken before anything is awaited, and given back if the start fails.
        has_slot = self._slots.take(always=start.options.is_awaited)
        live = None
        try:
            live = await self._claim(start, has_slot=has_slot)
        finally:
            if live is None:
                self._slots.give_back(has_slot=has_slot)
        if live is None:
            return False
        self._known.live[start.workflow_id] = live
        log.info('Workflow job created. [id="%s"]', start.workflow_id)
        self._slots.enter(live, has_slot=has_slot)
        return True

    async def _claim(self, start: _Start, *, has_slot: bool) -> HeldWorkflow | None:
        """Claim the epoch, then write the status; None if another manager claimed it first."""
        status = WorkflowStatus.RUNNING if has_slot else WorkflowStatus.PENDING
        continued = start.continued
        before = continued.status if continued else WorkflowStatus.NONE
        # The list of files is used again only if it is still right. Of a successful workflow,
        # _has_lost_output may have deleted a damaged value; an owner that has lost its lease may
        # commit until our claim. A workflow that waits for a slot lists them later, so as not to
        # keep a long list meanwhile.
        is_known = before.can_be_resumed and not (continued and continued.has_lost_owner)
        files = start.seen.files if has_slot and is_known else None
        check_transition(start.workflow_id, RUN_AGAIN.get(before, before), status)
        if continued is None:
            ready = self._prepare(start, status)
        else:
            ready = await self._known.in_thread(self._prepare, start, status)
        await self._keep_archives(start)
        ownership = Ownership(
            self._known.store,
            ready.claim,
            self._known.tenure,
            look_interval_s=self._known.intervals.look_s,
        )
        segment, changes = quote_id(start.workflow_id), self._known.changes
        announced = changes.begin(segment)
        try:
            if not await self._known.writes.put(
                lambda: ownership.claim_put(start.graph),
                alone=len(ready.graph.tasks) > _FEW_TASKS,
                guard=ownership,
            ):
                return None
            ownership.is_held = True
            await self._write_first_status(start, ready, ownership, announced)
            changes.note(IndexRow.of(ready.record, segment), has_begun=True)
        finally:
            changes.end(segment)
        found = start.seen.found
        return HeldWorkflow(
            claim=ready.claim,
            ownership=ownership,
            graph=ready.graph,
            record=ready.record,
            known=ready.known,
            files=files,
            replaced=list(found.documents) if found else [],
        )

    async def _keep_archives(self, start: _Start) -> None:
        """Let a workflow that a task has started use the archives of its caller's code.

        Before the claim: then it is deleted with them. For a submission its try has done so.
        """
        if start.graph is None or start.options.submission_id:
            return
        if used := archives_of(start.graph.code):
            archives = self._known.store.archives
            await self._known.in_thread(
                lambda: archives.keep(start.workflow_id, used, now=self._known.clock())
            )

    async def _write_first_status(
        self,
        start: _Start,
        ready: _Prepared,
        ownership: Ownership,
        announced: asyncio.Future[None],
    ) -> None:
        store, claim = self._known.store, ready.claim
        try:
            await announced
            await self._known.writes.put(
                lambda: status_put(ready.record, signing=store.signing), guard=ownership
            )
            if claim.base_epoch == claim.epoch > 1:
                await self._known.in_thread(store.delete_earlier, start.workflow_id, claim.epoch)
        except OwnershipLostError:
            raise  # it is no longer ours
        except Exception:
            # The claim is there, and perhaps the status: others would wait for us for ever.
            late = replace(ready.record, status=WorkflowStatus.RESUMABLE)
            found = start.seen.found
            self._late.add(late, replaces=found.record if found else None)
            raise

    def _prepare(self, start: _Start, status: WorkflowStatus) -> _Prepared:
        """Prepare what a start writes. Blocks if the workflow goes on from something."""
        workflow_id, graph, options = start.workflow_id, start.graph, start.options
        continued = start.continued.record if start.continued else None
        earlier: Claim | None = None
        known: list[str] | None = None
        if continued is not None:
            earlier, before = read_earlier(
                self._known.store, workflow_id, continued.epoch, is_replaced=graph is not None
            )
            known = ids_of(before) if before and graph else None
            if graph is None and before is not None:
                # Its author may have changed files since; workers that have imported the old ones may live.
                graph = replace(before, code=with_files_of_now(before.code))
        if graph is None:
            raise WorkflowNotResumableError(workflow_id, reason="It does not exist.")
        now = self._known.clock()
        claim = next_claim(
            workflow_id,
            after=start.seen.epoch,
            manager_id=self._known.manager_id,
            now=now,
            user_metadata=start.user_metadata,
            has_graph=start.graph is not None,
            continues=earlier,
            on_change=options.on_change,
            from_task=options.from_task,
            traceparent=options.traceparent,
            submission_id=options.submission_id,
        )
        record = StatusRecord(
            workflow_id=workflow_id,
            status=status,
            epoch=claim.epoch,
            number=0,
            manager_id=self._known.manager_id,
            created_at=continued.created_at if continued else now,
            started_at=now if status is WorkflowStatus.RUNNING else None,
            user_metadata=continued.user_metadata if continued else start.user_metadata,
            tasks_total=len(graph.tasks),
        )
        return _Prepared(claim=claim, graph=graph, record=record, known=known)

    def _obey_pending_cancel(self, found: StoredWorkflow) -> bool:
        return lifecycle.obey_pending_cancel(
            self._known.store,
            found,
            manager_id=self._known.manager_id,
            now=self._known.clock(),
        )


async def _is_held(known: Registry, workflow_id: str, options: StartOptions) -> bool:
    """True if this manager runs the workflow. Waits for the end of a run that is being written."""
    while (live := known.live.get(workflow_id)) is not None:
        if live.record.status.is_active and not live.is_ending:
            _check_existing(workflow_id, live.record.status, options, live.claim)
            return True
        await asyncio.wait([live.ended])
    return False


def _is_of(claim: Claim, options: StartOptions) -> bool:
    """True if the claim was made for the submission that asks for this start."""
    return bool(options.submission_id) and claim.submission_id == options.submission_id


def _going_on(options: StartOptions) -> StartOptions:
    """For a run that a submission has begun and whose manager is gone: nothing of it counts less."""
    return replace(options, on_existing="resume", from_task="", submission_id="")


class _Step(Enum):
    """What a call does next with a workflow that this manager does not hold."""

    ATTACH = auto()  # another manager runs it
    WAIT = auto()  # for a manager that may be alive
    CANCEL_OR_START = auto()  # whichever a stored request to cancel leaves
    START = auto()


def _decide(workflow_id: str, seen: _Seen, options: StartOptions, *, is_starting: bool) -> _Step:
    """What comes next, by what is stored.

    :param is_starting: another manager may be starting it.
    :raises WorkflowAlreadyExistsError: with ``on_existing="fail"``.
    :raises WorkflowStillActiveError: when an active one is to be restarted.
    :raises WorkflowNotResumableError: when it was canceled.
    """
    found = seen.found
    if is_starting or (found is not None and found.owner_may_live):
        return _Step.WAIT
    if found is None:
        return _Step.START
    _check_existing(workflow_id, found.status, options)
    if found.status.is_active:
        return _Step.ATTACH
    if options.on_existing == "restart":
        return _Step.START
    if found.status is WorkflowStatus.CANCELED:
        raise WorkflowNotResumableError(
            workflow_id,
            reason="It was canceled, which is final. Run it under another id, or again from the "
            'start with on_existing="restart".',
        )
    return _Step.CANCEL_OR_START if seen.has_cancel else _Step.START


def _check_existing(
    workflow_id: str, status: WorkflowStatus, options: StartOptions, claim: Claim | None = None
) -> None:
    if claim is not None and _is_of(claim, options):
        return  # this very start has made it
    if options.on_existing == "fail":
        raise WorkflowAlreadyExistsError(workflow_id, status)
    if status.is_active and (options.on_existing == "restart" or options.from_task):
        raise WorkflowStillActiveError("RESTART", workflow_id)


def _may_refuse(graph: Graph | None, options: StartOptions) -> bool:
    if graph is None:
        return False
    kinds = Tasks.of(graph.tasks).kinds
    return options.on_change == "refuse" or any(
        kind.options.on_change == "refuse" for kind in kinds
    )
