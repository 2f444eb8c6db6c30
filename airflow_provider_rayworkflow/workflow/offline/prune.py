"""Deletes workflows that ended long ago, or cuts them down to their outputs.

Needs the storage only. What runs, waits, or has begun again meanwhile is left alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    StorageError,
    WorkflowError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import Encoding, StatusRecord
from airflow_provider_rayworkflow.workflow.model.retention import PRUNABLE
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.stored_map import StoredMap
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.orphans import (
    delete_dead_leases,
    delete_dead_submissions,
    delete_orphaned_events,
    delete_orphaned_submissions,
)
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

#: Those that are pruned by default: all but the ones that wait for a resume.
PRUNED_BY_DEFAULT = ("SUCCESSFUL", "FAILED", "CANCELED")
# Each has been tried for a minute.
_AT_ONCE = 100
_MOST_UNANSWERED = 3
_DAY_S = 24 * 3600.0
# So long a submission waits for its cluster: a try gives up much sooner, and takes it back unless it is killed.
_MOST_WAIT_S = 3 * _DAY_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """One workflow that was pruned, or would be.

    :ivar kept_output: its output and status are still there.
    """

    workflow_id: str
    status: WorkflowStatus
    kept_output: bool


def check_statuses(statuses: Collection[str]) -> set[str]:
    """Return them if workflows may be pruned by them.

    :raises ValueError: if not.
    """
    wanted = {statuses} if isinstance(statuses, str) else set(statuses)
    if not wanted or not wanted <= set(PRUNABLE):
        raise ValueError(f"statuses must be of {list(PRUNABLE)}, not {sorted(wanted)}.")
    return {str(status) for status in wanted}


def prune(
    store: WorkflowStore,
    *,
    older_than_s: float | None,
    now: float,
    statuses: Collection[str] = PRUNED_BY_DEFAULT,
    id_prefix: str = "",
    keep_outputs: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = log.warning,
) -> list[Pruned]:
    """Delete workflows that ended long ago. Its cost follows how many these are.

    Events of unknown workflows that came by HTTP so long ago are deleted, too, the leases of managers that died so
    long ago (a day at least), and what was submitted so long ago (three days at least) for a cluster that has no manager,
    unless only some ids or ended workflows of any age are meant.

    :param older_than_s: seconds since it got its status; None for any time.
    :param now: seconds since the epoch.
    :param id_prefix: only ids that begin so.
    :param keep_outputs: of successful ones keep the status, the graph and the output, and delete
        all other checkpoints and the log.
    :param dry_run: only say what would be done.
    :param report: told what could not be read or deleted, by name; the rest is done.
    :raises StorageError: when the storage as a whole does not answer.
    """
    before = math.inf if older_than_s is None else now - older_than_s
    reader = StatusReader(store, lambda: now)
    pruning = _Pruning(store, reader, check_statuses(statuses), now, before, keep_outputs, dry_run)
    candidates = sorted({one for one in pruning.candidates(report) if one.startswith(id_prefix)})
    done = [one for batch in pruning.prune_batches(candidates, _AT_ONCE, report) for one in batch]
    if not dry_run and not id_prefix and older_than_s is not None:
        _prune_orphans(store, before, now=now, report=report)
    return done


def prune_few_by_few(
    store: WorkflowStore,
    status: str,
    *,
    older_than_s: float,
    now: float,
    few: int,
) -> Iterator[list[Pruned]]:
    """As :func:`prune` of one status, a few workflows at a time: each list is made when it is asked for.

    The oldest first. One whose owner is gone, or looks so, is left: since when it does not run is not known.
    Orphans are left alone.

    :param few: how many are looked at for a list.
    :returns: what was deleted of each few; an empty list where none of them was.
    """
    reader = StatusReader(store, lambda: now)
    statuses = check_statuses([status])
    pruning = _Pruning(store, reader, statuses, now, now - older_than_s, False, False, waits=False)
    yield from pruning.prune_batches(pruning.candidates(log.warning), few, log.warning)


@dataclass(frozen=True, slots=True)
class _Pruning:
    """What one call prunes, and how.

    :ivar statuses: of the workflows that it takes.
    :ivar now: seconds since the epoch.
    :ivar before: it takes workflows that ended before; seconds since the epoch.
    :ivar keep_outputs: it cuts them down to their outputs, and deletes none.
    :ivar dry_run: it says what it would do, and does nothing.
    :ivar waits: where an owner only looks gone, it waits until that is certain.
    """

    store: WorkflowStore
    reader: StatusReader
    statuses: set[str]
    now: float
    before: float
    keep_outputs: bool
    dry_run: bool
    waits: bool = True

    def candidates(self, report: Callable[[str], None]) -> Iterator[str]:
        """Ids of workflows that have one of the statuses, and may be old enough. One may come twice."""

        def left_out(problem: WorkflowError) -> None:
            report(f"Something is not looked at: {problem}")

        overview = Overview(self.store, lambda: self.now, report=left_out)
        wanted = [WorkflowStatus(status) for status in self.statuses]
        for listed in overview.find_ended(wanted, before=self.before):
            yield listed.workflow_id

    def prune_batches(
        self, workflow_ids: Iterable[str], size: int, report: Callable[[str], None]
    ) -> Iterator[list[Pruned]]:
        """Prune several with one note for each batch of this size: :meth:`prune_all`."""
        left = iter(workflow_ids)
        while batch := list(islice(left, size)):
            noted = self.store.notes.changing(
                () if self.dry_run else [quote_id(one) for one in batch]
            )
            with noted:
                pruned = self.prune_all(batch, report)
            yield pruned

    def prune_all(self, workflow_ids: Sequence[str], report: Callable[[str], None]) -> list[Pruned]:
        """Prune several, at the same time where the storage gains by it.

        What goes wrong with one is told, and the rest is done.

        :raises StorageError: when the storage as a whole does not answer.
        """
        attempts = _Attempts(self.prune)
        try:
            found = map_at_once(self.store.bytes, attempts.prune, workflow_ids)
        finally:
            for workflow_id in workflow_ids:
                if (problem := attempts.problems.get(workflow_id)) is not None:
                    report(f"Workflow {workflow_id} is not pruned: {problem}")
        return [one for one in found if one is not None]

    def prune(self, workflow_id: str) -> Pruned | None:
        """Prune one workflow; None if that does not concern it any more."""
        # Whose age and output do not matter may be damaged.
        by_name = self.before == math.inf and not self.keep_outputs
        found = (self.reader.read_name if by_name else self.reader.read)(workflow_id)
        if found is None or (pruned := self._decide(found)) is None:
            return None
        if self.dry_run:
            return pruned
        visitor = new_visitor_id()
        if pruned.kept_output:
            _cut_down(self.store, found, manager_id=visitor, now=self.now)
        else:
            lifecycle.delete(self.store, found, manager_id=visitor, now=self.now, waits=self.waits)
        return pruned

    def _decide(self, found: StoredWorkflow) -> Pruned | None:
        record = found.record
        last = record.changed_at or record.ended_at or record.started_at or record.created_at
        if found.status not in self.statuses or last > self.before:
            return None
        if found.has_lost_owner and not self.waits:
            return None  # since when it does not run is not known
        keeps = self.keep_outputs and found.status is WorkflowStatus.SUCCESSFUL
        if keeps and _is_cut_down(self.store, record):
            return None
        return Pruned(
            workflow_id=record.workflow_id,
            status=found.status,
            kept_output=keeps,
        )


class _Attempts:
    """Prunes workflows of a batch, in several threads; goes on where one can't be pruned.

    :param prune: prunes one workflow.
    :ivar problems: why a workflow could not be pruned, by its id.
    """

    def __init__(self, prune: Callable[[str], Pruned | None]) -> None:
        self.problems: dict[str, WorkflowError] = {}
        self._prune = prune
        self._unanswered = 0
        self._lock = threading.Lock()

    def prune(self, workflow_id: str) -> Pruned | None:
        """Prune one workflow; None if it was not.

        :raises StorageError: when several, one after the other, got no answer. Later calls do nothing.
        """
        if self._unanswered >= _MOST_UNANSWERED:
            return None
        try:
            pruned = self._prune(workflow_id)
        except WorkflowStillActiveError as exc:
            log.warning("Workflow %s is not pruned: %s", workflow_id, exc)
            return None
        except WorkflowError as exc:
            self.problems[workflow_id] = exc
            if self._count(is_unanswered=getattr(exc, "is_transient", False)) == _MOST_UNANSWERED:
                raise
            return None
        self._count(is_unanswered=False)
        return pruned

    def _count(self, *, is_unanswered: bool) -> int:
        with self._lock:
            if is_unanswered or self._unanswered >= _MOST_UNANSWERED:
                self._unanswered += 1
            else:
                self._unanswered = 0
            return self._unanswered


def _prune_orphans(
    store: WorkflowStore, before: float, *, now: float, report: Callable[[str], None]
) -> None:
    """In this order: dead managers leave clusters without one, and these submissions that use archives."""
    dead_before, given_up_before = now - _DAY_S, now - _MOST_WAIT_S
    for what, delete in (
        (
            "Leases of dead managers",
            lambda: delete_dead_leases(store, min(before, dead_before)),
        ),
        (
            "Submissions for clusters without a manager",
            lambda: delete_dead_submissions(store, min(before, given_up_before)),
        ),
        ("Change logs", lambda: LeftLogs(store).take_over(now)),
        ("Events of unknown workflows", lambda: delete_orphaned_events(store, before)),
        ("Submissions of unknown workflows", lambda: delete_orphaned_submissions(store, before)),
    ):
        try:
            delete()
        except StorageError as exc:
            report(f"{what} are not pruned: {exc}")


def _is_cut_down(store: WorkflowStore, record: StatusRecord) -> bool:
    checkpoints = read_snapshot(store, record).checkpoints
    has_more = len(checkpoints.records) > 1 or checkpoints.failures
    return not has_more and not store.logs.files(record.workflow_id)


def _cut_down(store: WorkflowStore, found: StoredWorkflow, *, manager_id: str, now: float) -> None:
    """Under an epoch of our own, write the output's record alone; then delete the others."""
    record = found.record
    workflow_id = record.workflow_id
    before = read_snapshot(store, record)
    output = _output_record(record, before)
    claim = lifecycle.claim(
        store, found, why="PRUNE", manager_id=manager_id, now=now, continues=before.claim
    )
    JournalWriter(store.bytes, workflow_id, claim.epoch, signing=store.signing).commit([output])
    needed = _blobs_of(store, output)
    store.write_status(
        replace(record, epoch=claim.epoch, number=0, manager_id=manager_id), replaces=record
    )
    kept = {claim.epoch, claim.graph_epoch}
    store.delete_files(
        workflow_id,
        unless=lambda file: (
            file.epoch == claim.epoch
            or (file.kind == "epoch" and file.epoch in kept)
            or file.key in needed
        ),
    )
    store.logs.delete(workflow_id)
    store.archives.release(workflow_id)  # nothing is left to run


def _blobs_of(store: WorkflowStore, output: TaskRecord) -> set[str]:
    """The keys of the values that the output consists of: of the result of a map, those of its items."""
    needed: set[str] = set()
    pending = [output.result] if output.result else []
    while pending:
        result = pending.pop()
        if result.blob is not None:
            needed.add(result.blob.key)
        if result.encoding is Encoding.MAP:
            data = result.inline if result.blob is None else store.values.read(result.blob)
            entries = StoredMap.from_bytes(data or b"").entries
            pending.extend(entry.result for entry in entries if entry.result is not None)
    return needed


def _output_record(record: StatusRecord, snapshot: Snapshot) -> TaskRecord:
    task_id, result = snapshot.output_id, snapshot.output
    if result is None:
        raise CorruptedDataError(task_id, "the output's checkpoint is damaged; resume it first")
    return TaskRecord(task_id=task_id, result=result, json_output=record.output)
