"""A workflow that a manager holds, and what those who wait for it are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError
from airflow_provider_rayworkflow.workflow.execution.executor import Executor
from airflow_provider_rayworkflow.workflow.manager.ownership import Ownership
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.outcome import Stop
from airflow_provider_rayworkflow.workflow.model.records import Result, StatusRecord, TaskFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.manager.log_writer import RunLog


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
class HeldWorkflow:
    """A workflow that this manager holds.

    :ivar ownership: asked before anything is written for it.
    :ivar lost: why the manager may not go on with it.
    :ivar unwritten: why its final status is not in the storage yet.
    :ivar known: ids of the tasks of the graph that it ran before, None if they are not known.
    :ivar files: what lay in its folder when it was claimed, None if that has to be asked.
    :ivar pending_cancel: the request that has it canceled if this manager dies during its cleanup.
    :ivar needs_no_slot: an actor or a plain Ray task waits for it: it does not wait for a slot.
    :ivar log: takes what its tasks print and log, while it runs.
    :ivar replaced: keys of status documents that count no more; deleted when the run ends.
    """

    claim: Claim
    ownership: Ownership
    graph: Graph
    record: StatusRecord
    known: Collection[str] | None = None
    files: Sequence[WorkflowFile] | None = None
    needs_no_slot: bool = False
    replaced: list[str] = field(default_factory=list)
    executor: Executor | None = None
    log: RunLog | None = None
    stop: Stop | None = None
    stopped_by: str = ""
    pending_cancel: StopRequest | None = None
    lost: OwnershipLostError | None = None
    unwritten: Exception | None = None
    task: asyncio.Task[None] | None = None
    ended: asyncio.Future[Output] = field(default_factory=asyncio.Future)
    is_ending: bool = False  # its last status is being written, or is
    waiters: dict[str, list[asyncio.Future[Result]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def __post_init__(self) -> None:
        self.ended.add_done_callback(_retrieve)

    def tell_waiters(self, task_id: str, result: Result) -> None:
        """A task has its result: tell those who wait for it."""
        for waiter in self.waiters.get(task_id, ()):
            if not waiter.done():
                waiter.set_result(result)

    def release_waiters(self) -> None:
        """The workflow has ended: those who still wait for a task wait in vain."""
        for futures in self.waiters.values():
            for future in futures:
                if not future.done():
                    future.cancel()


def _retrieve(future: asyncio.Future[Output]) -> None:
    # A workflow may end without a waiter; asyncio would then log its error as never retrieved.
    if not future.cancelled():
        future.exception()
