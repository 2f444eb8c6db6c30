"""The claim of a workflow: what a start writes before anything of it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    OwnershipLostError,
    WorkflowNotResumableError,
)
from airflow_provider_rayworkflow.workflow.local_ray.code_files import with_files_of_now
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.ownership import Ownership
from airflow_provider_rayworkflow.workflow.manager.recoveries import recoveries_of
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.code_variables import archives_of
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import StartOptions, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import (
    RUN_AGAIN,
    WorkflowStatus,
    check_transition,
)
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import ids_of
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile, quote_id
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_earlier
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_put
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow

Json = dict[str, Any]

# To write a larger graph takes so long that nothing else shall be written with it.
_FEW_TASKS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
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
class Start:
    """A run to claim.

    :ivar seen: what was stored.
    :ivar graph: None for the stored one.
    """

    workflow_id: str
    seen: Seen
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


class Claiming:
    """How one manager claims workflows.

    :param late: takes the status of a workflow that was claimed and could not be begun.
    """

    def __init__(self, known: Registry, late: StatusBacklog) -> None:
        self._known = known
        self._late = late

    async def claim(self, start: Start, *, has_slot: bool) -> HeldWorkflow | None:
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
            changes.note_start(IndexRow.of(ready.record, segment))
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

    async def _keep_archives(self, start: Start) -> None:
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
        start: Start,
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

    def _prepare(self, start: Start, status: WorkflowStatus) -> _Prepared:
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
            on_failure=options.on_failure,
            from_task=options.from_task,
            traceparent=options.traceparent,
            submission_id=options.submission_id,
            recoveries=recoveries_of(earlier, start.seen.files, now) if options.is_recovery else 0,
        )
        record = StatusRecord(
            workflow_id=workflow_id,
            status=status,
            epoch=claim.epoch,
            number=0,
            manager_id=self._known.manager_id,
            created_at=continued.created_at if continued else now,
            changed_at=now,
            started_at=now if status is WorkflowStatus.RUNNING else None,
            user_metadata=continued.user_metadata if continued else start.user_metadata,
            tasks_total=len(graph.tasks),
        )
        return _Prepared(claim=claim, graph=graph, record=record, known=known)
