"""Begins workflows: looks at what is stored, takes a slot, claims the next epoch."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowAlreadyExistsError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
    said_by,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.claiming import Claiming, Seen, Start
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.manager.slots import Place, Slots
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.manager.turns import Turn, in_turns
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Tasks
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.finished import has_lost_output
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan
from airflow_provider_rayworkflow.workflow.storage.claims import latest_epoch
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_key
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow

log = get_logger(__name__)

Json = dict[str, Any]


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
        self._claiming = Claiming(known, late)
        self._resuming_all = asyncio.Lock()

    async def begin(
        self,
        workflow_id: str,
        graph: Graph | None,
        user_metadata: Json,
        options: StartOptions,
        turn: Turn | None = None,
    ) -> None:
        """Run, resume, or attach to a workflow; see :meth:`Manager.submit`.

        :param graph: None for the stored one.
        :param turn: its slot is taken then. None for at once.
        """
        has_lost, asked = False, options
        async with self._locks.of(workflow_id):
            while True:
                options = asked
                if await _is_held(self._known, workflow_id, options):
                    return
                seen = Seen()
                if has_lost or not options.is_new:
                    seen = await self._known.in_thread(self._look, workflow_id, has_lost)
                if await self._has_begun(workflow_id, seen, options):
                    if not seen.has_lost_owner:
                        return
                    options = _going_on(options)
                if seen.found is None and graph is None:
                    raise WorkflowNotResumableError(workflow_id, reason="It does not exist.")
                is_starting = await self._is_starting(workflow_id, seen)
                step = _decide(workflow_id, seen, options, is_starting=is_starting)
                if step is _Step.ATTACH:
                    return
                if step is _Step.WAIT:
                    await asyncio.sleep(self._known.intervals.watch_s)
                    continue
                if step is _Step.CANCEL_OR_START and await self._obey_pending_cancel(seen.found):
                    continue
                start = Start(
                    workflow_id=workflow_id,
                    seen=seen,
                    graph=graph,
                    user_metadata=user_metadata,
                    options=options,
                )
                if not await self._has_to_run(start):
                    log.info("Workflow %s has nothing to run: its output stays", workflow_id)
                    return
                if await self._claim_and_start(start, turn or Turn()):
                    return
                has_lost = True  # so there is a claim, perhaps of an earlier try of this very call

    async def resume_all(
        self, workflow_ids: Sequence[str], *, is_recovery: bool = False
    ) -> list[tuple[str, Exception | None]]:
        """Resume workflows, several at the same time where the storage gains by it. They get slots in this order.

        :param is_recovery: a restarted manager does so by itself.
        :returns: what kept each from being resumed, or None; without those that this manager holds already.
        """
        async with self._resuming_all:  # two orders could wait for each other
            ids = [
                workflow_id for workflow_id in workflow_ids if workflow_id not in self._known.live
            ]
            at_once = self._known.store.bytes.reads_at_once
            options = StartOptions(is_recovery=is_recovery)
            resume = partial(self._try_resume, options)
            errors = await in_turns(resume, ids, at_once=at_once)
        return list(zip(ids, errors, strict=True))

    async def _try_resume(
        self, options: StartOptions, workflow_id: str, turn: Turn
    ) -> Exception | None:
        try:
            await self.begin(workflow_id, None, {}, options, turn=turn)
        except Exception as exc:  # of any kind: the others are resumed
            log.warning("Workflow %s can't be resumed: %s", workflow_id, said_by(exc))
            return exc
        return None

    def _look(self, workflow_id: str, has_claims: bool) -> Seen:
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
                return Seen()
            if found is not None and found.status.is_active:
                return Seen(found=found, epoch=found.record.epoch)  # there is nothing to claim
            files = store.list_files(workflow_id)
            epoch, written = latest_epoch(files), found.record.epoch if found else 0
            seen = Seen(found=found, epoch=max(epoch, written), files=files)
            # Who claims, or whose lease has just ended, may have written a status after our look.
            if epoch <= written and not (found and found.has_lost_owner):
                return seen
            latest = store.latest_status(workflow_id)
            if (latest and latest.key) == (found and status_key(found.record)):
                return seen

    async def _has_begun(self, workflow_id: str, seen: Seen, options: StartOptions) -> bool:
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

    async def _has_to_run(self, start: Start) -> bool:
        """Whether :meth:`_check_plan` finds work; a new workflow is checked only where tasks may refuse."""
        options = start.options
        plans = start.continued or options.from_task or _may_refuse(start.graph, options)
        return not plans or await self._known.in_thread(self._check_plan, start)

    def _check_plan(self, start: Start) -> bool:
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

    async def _is_starting(self, workflow_id: str, seen: Seen) -> bool:
        """True if a manager that may live has claimed the latest epoch and not written its status yet."""
        if not seen.has_new_claim:
            return False
        claim = await self._known.in_thread(self._known.store.read_claim, workflow_id, seen.epoch)
        if claim.manager_id == self._known.manager_id:
            return False  # a start of ours that failed
        look = self._known.statuses.look()
        return not await self._known.in_thread(look.may_be_replaced, claim.manager_id)

    async def _claim_and_start(self, start: Start, turn: Turn) -> bool:
        """Start it when its turn has come; False if another manager has claimed it first."""
        place = await self._take_place(start, turn)

        async def begin() -> bool:
            live = None
            try:
                live = await self._claiming.claim(start, has_slot=place.has_slot)
            finally:
                if live is None:
                    self._slots.give_back(place)
            if live is None:
                return False
            self._known.live[start.workflow_id] = live
            log.info('Workflow job created. [id="%s"]', start.workflow_id)
            self._slots.enter(live, place)
            return True

        # A caller that is canceled leaves no claim without a run.
        return await asyncio.shield(asyncio.ensure_future(begin()))

    async def _take_place(self, start: Start, turn: Turn) -> Place:
        """A slot, or a place in the queue: nothing is awaited after it is taken.

        :raises queue.Full: when neither is free.
        """
        await turn.come()
        try:
            place = self._slots.take(always=start.options.is_awaited)
        except queue.Full:
            await turn.be_alone()
            place = self._slots.take(always=start.options.is_awaited)
        turn.pass_on()
        return place

    async def _obey_pending_cancel(self, found: StoredWorkflow | None) -> bool:
        known = self._known
        return found is not None and await known.in_thread(
            lambda: lifecycle.obey_pending_cancel(
                known.store, found, manager_id=known.manager_id, now=known.clock()
            )
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


def _decide(workflow_id: str, seen: Seen, options: StartOptions, *, is_starting: bool) -> _Step:
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
