"""Honest statuses: RUNNING and PENDING count only while the owner's lease is alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.leases import Liveness
from airflow_provider_rayworkflow.workflow.storage.status_documents import Report, log_left_out
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWorkflow:
    """What is stored of a workflow.

    :ivar record: as it was written.
    :ivar status: the honest one: RESUMABLE if it was written as active and its owner is gone.
    :ivar documents: keys of the status documents, with those that the record replaces.
    :ivar owner_may_live: the owner only looks gone, at first sight: its workflow must not be taken
        over yet.
    """

    record: StatusRecord
    status: WorkflowStatus
    documents: Sequence[str] = ()
    owner_may_live: bool = False

    @property
    def until_certain(self) -> StoredWorkflow:
        """For callers that look again and again: an owner that may live counts as alive."""
        return replace(self, status=self.record.status) if self.owner_may_live else self

    @property
    def has_lost_owner(self) -> bool:
        return self.record.status is not self.status

    @property
    def honest_record(self) -> StatusRecord:
        return replace(self.record, status=self.status) if self.has_lost_owner else self.record


class StatusReader:
    """Reads statuses and judges their owners: RUNNING without a living owner becomes RESUMABLE.

    Kept beside its store. Each call is one look of its own; :meth:`look` begins one for several
    questions. The statuses are for display: as long as this process has not watched an owner for a
    lease time, the time in the owner's lease tells whether it counts as alive.
    :meth:`may_be_replaced` decides whether a workflow may be taken over, and does not go by that time.

    :param clock: seconds since the epoch.
    :param patient: for a reader that looks again and again, and does something about a lost owner:
        one that may live counts as alive, until it is certain.
    """

    def __init__(
        self,
        store: WorkflowStore,
        clock: Callable[[], float] = time.time,
        *,
        patient: bool = False,
    ) -> None:
        self.store = store
        self._clock = clock
        self._patient = patient

    def look(self, report: Report | None = None) -> StatusLook:
        """Begin a look: what it finds out of a manager counts for all of its questions.

        :param report: told of leases that can't be read; by default that is logged.
        """
        return StatusLook(
            self.store, now=self._clock(), patient=self._patient, report=report or _log_lease
        )

    def read(self, workflow_id: str) -> StoredWorkflow | None:
        """How a workflow stands, None if nothing is stored. Up to three reads."""
        record = self.store.read_status(workflow_id)
        if record is None:
            return None
        return self.found(record)

    def found(self, record: StatusRecord, documents: Sequence[str] = ()) -> StoredWorkflow:
        """A record as it was read, with how its owner stands. One read at most."""
        look = self.look()
        status = look.of(record.status, record.manager_id)
        has_lost_owner = status is not record.status
        return StoredWorkflow(
            record=record,
            status=status,
            documents=documents,
            owner_may_live=has_lost_owner and not look.may_be_replaced(record.manager_id),
        )

    def read_name(self, workflow_id: str) -> StoredWorkflow | None:
        """As :meth:`read`, by the name of the status document, which may be damaged: for a deletion."""
        name = self.store.latest_status(workflow_id)
        if name is None:
            return None
        record = StatusRecord(
            workflow_id=workflow_id,
            status=name.status,
            epoch=name.epoch,
            number=name.number,
            manager_id=name.manager_id,
            created_at=0,
        )
        return self.found(record)

    def list_workflows(
        self, report: Report | None = None
    ) -> list[tuple[str, WorkflowStatus, keys.StatusKey]]:
        """Every workflow's id, honest status, and what the name of its status document says.

        Sorted by id, those that wait or waited for a slot last. With a signing key, what is not
        signed is left out. One listing, and a read for each manager.

        :param report: told why one is left out, and of leases that can't be read; by default that
            is logged.
        """
        look, report = self.look(report), report or log_left_out
        found = [
            (workflow_id, look.of(key.status, key.manager_id), key)
            for workflow_id, key in self.store.list_statuses(report).items()
            if _is_believed(self.store, key, report)
        ]
        return sorted(found, key=lambda item: (item[2].status is WorkflowStatus.PENDING, item[0]))


class StatusLook:
    """One look at the owners of workflows; reads each manager's lease once.

    An owner that may live, and that this process has not watched for a lease time, counts as the
    time in its lease says. That is for display: :meth:`may_be_replaced` decides who may take a
    workflow over.

    :param now: seconds since the epoch.
    :param patient: as for :class:`StatusReader`.
    :param report: told of leases that can't be read.
    """

    def __init__(self, store: WorkflowStore, *, now: float, patient: bool, report: Report) -> None:
        self._store = store
        self._report = report
        self._now = now
        self._alive = ("alive", "doubtful") if patient else ("alive",)
        self._owners: dict[str, Liveness] = {}

    def of(self, status: WorkflowStatus, manager_id: str) -> WorkflowStatus:
        """RUNNING or PENDING only while the owner's lease is alive, else RESUMABLE."""
        if not status.is_active:
            return status
        return status if self.is_alive(manager_id) else WorkflowStatus.RESUMABLE

    def is_alive(self, manager_id: str) -> bool:
        """True while the manager's lease is. False does not say that it may be replaced."""
        return self._liveness(manager_id) in self._alive

    def may_be_replaced(self, manager_id: str) -> bool:
        """True if the manager is dead: gone, or without a renewal for as long as its lease lasts."""
        return self._liveness(manager_id) == "dead"

    def _liveness(self, manager_id: str) -> Liveness:
        if manager_id not in self._owners:
            self._owners[manager_id] = self._judge(manager_id)
        return self._owners[manager_id]

    def _judge(self, manager_id: str) -> Liveness:
        watch = self._store.leases.watch
        if watch.is_known_dead(manager_id):
            return "dead"
        asked_at = watch.clock()
        try:
            lease = self._store.leases.read(manager_id)
        except CorruptedDataError as exc:
            self._report(exc)
            return watch.judge_damaged(manager_id, asked_at=asked_at)
        except DataLoadError as exc:
            if exc.is_transient:
                raise
            self._report(exc)
            return "doubtful"  # its manager may go on renewing what this process may not read
        if lease is None:
            return "dead"  # its manager has given it back
        return watch.judge(lease, self._now, asked_at=asked_at)


def _log_lease(problem: StorageError) -> None:
    log.warning("The lease of a workflow's owner is of no use: %s", problem)


def _is_believed(store: WorkflowStore, key: keys.StatusKey, report: Report) -> bool:
    try:
        store.believe(key)
    except KeyNotFoundError:
        return False  # replaced since the listing
    except DataLoadError as exc:
        report(exc)
        return False
    return True
