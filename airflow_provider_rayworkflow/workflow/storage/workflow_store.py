"""What is stored of workflows: claims, graphs, statuses, checkpoints and leases.

Knows documents and keys, not who may write when: that is the manager's business. Nothing here
unpickles.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    load_frames,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, read_graph
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow, counted_as
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.archives import ArchiveStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLogs
from airflow_provider_rayworkflow.workflow.storage.change_notes import ChangeNotes, VisitorNotes
from airflow_provider_rayworkflow.workflow.storage.claims import claim_put, latest_epoch
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.journal import SEGMENT_BYTES, read_journal
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseStore
from airflow_provider_rayworkflow.workflow.storage.log_pieces import LogPieces
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox
from airflow_provider_rayworkflow.workflow.storage.saved_keys import saved_workflow_file
from airflow_provider_rayworkflow.workflow.storage.status_documents import (
    StatusDocuments,
    advising,
    status_key,
    status_put,
)
from airflow_provider_rayworkflow.workflow.storage.values import ValueStore

Json = dict[str, Any]


class WorkflowStore(StatusDocuments):
    """Workflows on one storage root.

    :param signing: the keys with which documents are signed and checked; None for those of the
        environment.
    :param segment_bytes: for those who write journals, see :class:`.JournalWriter`.
    :ivar bytes: what holds all this.
    :ivar leases: the managers' leases.
    :ivar values: large values.
    :ivar logs: what tasks print and log.
    :ivar archives: folders of code that tasks need.
    :ivar events: what came by HTTP.
    :ivar mailbox: submissions, owners and stop requests.
    :ivar changes: what managers and visitors have changed lately.
    :ivar index: the workflows in the orders in which lists show them.
    :ivar notes: where this writer says what it changes.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        signing: SigningKeys | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        super().__init__(store, signing=signing)
        self.leases = LeaseStore(store, signing=signing)
        self.values = ValueStore(store, signing=signing)
        self.logs = LogPieces(store, signing=signing)
        self.archives = ArchiveStore(store, signing=signing)
        self.events = EventStore(store, signing=signing)
        self.mailbox = Mailbox(store, signing=signing)
        self.changes = ChangeLogs(store, signing=signing)
        self.index = Index(store, tally=counted_as, signing=signing)
        self.notes: ChangeNotes = VisitorNotes(self.changes, self.index)
        self.segment_bytes = segment_bytes

    def with_notes(self, notes: ChangeNotes) -> WorkflowStore:
        """The same for a writer that has a change log of its own."""
        other = copy.copy(self)
        other.notes = notes
        return other

    # ---- claims and graphs

    def claim(self, claim: Claim, graph: Graph | None = None) -> bool:
        """Write what :func:`.next_claim` has made; False if another manager has claimed that epoch first.

        One atomic write. With a graph, the claim carries it.
        """
        put = claim_put(claim, graph, signing=self.signing)
        return self.bytes.put_if_absent(put.key, put.data)

    def last_epoch(self, workflow_id: str) -> int:
        """The latest claimed epoch, 0 for none. One listing."""
        return latest_epoch(self._files(workflow_id))

    def read_claim(self, workflow_id: str, epoch: int) -> Claim:
        return self.read_epoch(workflow_id, epoch)[0]

    def read_run(self, workflow_id: str, epoch: int) -> tuple[Claim, Graph]:
        """An epoch's claim, and the graph that it runs. A read, or two if the graph is older.

        :raises CorruptedDataError: when a document is not whole; the workflow can't run then.
        :raises WorkflowNotFoundError: when there is no such epoch.
        """
        claim, graph = self.read_epoch(workflow_id, epoch)
        return claim, graph or self.read_older_graph(workflow_id, claim)

    def read_older_graph(self, workflow_id: str, claim: Claim) -> Graph:
        """The graph that a claim runs and does not carry. One read; errors as :meth:`read_run`."""
        _, graph = self.read_epoch(workflow_id, claim.graph_epoch)
        if graph is None:
            key = keys.epoch_key(workflow_id, claim.graph_epoch)
            with advising(_WITHOUT_GRAPH):
                raise CorruptedDataError(key, "it should carry a graph and has none")
        return graph

    def read_epoch(self, workflow_id: str, epoch: int) -> tuple[Claim, Graph | None]:
        """An epoch's claim, and the graph if the claim carries one. One read.

        :raises CorruptedDataError: when the document is not whole.
        :raises WorkflowNotFoundError: when there is no such epoch.
        """
        key = keys.epoch_key(workflow_id, epoch)
        try:
            data = self.bytes.get(key)
        except KeyNotFoundError as exc:
            raise WorkflowNotFoundError(workflow_id) from exc
        with advising(_WITHOUT_GRAPH):
            body, frames = load_frames(key, "epoch", data, signing=self.signing)
            graph_body = body.pop("graph", None)
            graph = read_graph(key, graph_body, list(frames)) if graph_body else None
            with understanding(key, "epoch"):
                return well_typed(Claim(**body)), graph

    # ---- statuses

    def write_status(self, record: StatusRecord, *, replaces: StatusRecord | None = None) -> None:
        """Write a status, then delete the one that it replaces, if any: two writes, and its notes.

        A crash in between leaves both; the later one counts. Written for an epoch that is no
        longer the latest, it changes nothing for any reader. A record with the number of one that is
        stored takes its place.

        :param replaces: None for nothing to delete: then it is one write.
        """
        put, segment = status_put(record, signing=self.signing), keys.quote_id(record.workflow_id)
        with self.notes.changing([segment]):
            self.bytes.put(put.key, put.data)
            self.notes.wrote(IndexRow.of(record, segment))
        if replaces is not None:
            self.bytes.delete([status_key(replaces)])

    # ---- checkpoints

    def list_files(self, workflow_id: str) -> list[keys.WorkflowFile]:
        """Claims, journals, values and what tasks saved, in the order in which they count."""
        return sorted(self._files(workflow_id))

    def read_checkpoints(
        self,
        workflow_id: str,
        *,
        since_epoch: int = 0,
        files: Sequence[keys.WorkflowFile] | None = None,
        taken: Callable[[Checkpoints, TaskRecord], None] | None = None,
        held_bytes: int = sys.maxsize,
    ) -> Checkpoints:
        """All committed records: one listing, and a read for each journal segment.

        A later epoch's record of a task counts more than an earlier one's. A large value whose
        object is missing or has another size than its record says is damaged.

        :param files: what :meth:`list_files` has found, if that has been asked already.
        :param taken: as for :func:`read_journal`, with ``held_bytes``.
        """
        if files is None:
            files = self.list_files(workflow_id)
        return read_journal(
            self.bytes,
            files,
            since_epoch=since_epoch,
            signing=self.signing,
            taken=taken,
            held_bytes=held_bytes,
        )

    # ---- whole workflows

    def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow, its status last, and the archives that it alone used."""
        segment = keys.quote_id(workflow_id)
        with self.notes.changing([segment]):
            self._delete(workflow_id)
            gone = IndexRow(segment=segment, workflow_id=workflow_id, status=WorkflowStatus.NONE)
            self.notes.wrote(gone)

    def _delete(self, workflow_id: str) -> None:
        self.archives.release(workflow_id)
        self.bytes.delete_folder(keys.workflow_folder(workflow_id))
        self.bytes.delete_folder(keys.events_folder(workflow_id))
        self.bytes.delete_folder(keys.submissions_folder(workflow_id))
        self.bytes.delete_folder(keys.answer_folder(workflow_id))
        self.bytes.delete_folder(keys.requests_folder(workflow_id))
        self.logs.delete(workflow_id)
        self.bytes.delete([keys.owner_key(workflow_id)])
        folder = keys.status_folder(workflow_id)
        with self.notes.changing([keys.quote_id(workflow_id)]):  # all before may have taken long
            self.bytes.delete_folder(folder)
        # A manager that runs it may have written its last word meanwhile. From now on it finds that the
        # earlier one is gone, and takes it back itself.
        if any(True for _ in self.bytes.list(folder)):
            self.bytes.delete_folder(folder)

    def delete_earlier(self, workflow_id: str, epoch: int) -> None:
        """Delete what epochs before this one left: a run that was given up."""
        files = [file.key for file in self._files(workflow_id) if 0 < file.epoch < epoch]
        statuses = self._status_keys(keys.status_folder(workflow_id))
        self.bytes.delete([*files, *(key.key for key in statuses if key.epoch < epoch)])
        self.logs.make_room(workflow_id, epoch)
        self.events.delete_given_out(workflow_id)

    def delete_files(
        self, workflow_id: str, *, unless: Callable[[keys.WorkflowFile], bool]
    ) -> None:
        """Delete what :meth:`list_files` gives, except what the caller keeps."""
        files = list(self._files(workflow_id))
        self.bytes.delete(file.key for file in files if not unless(file))

    def _files(self, workflow_id: str) -> Iterable[keys.WorkflowFile]:
        for entry in self.bytes.list(keys.workflow_folder(workflow_id)):
            file = keys.parse_workflow_file(entry.key, entry.size)
            if (file := file or saved_workflow_file(entry.key, entry.size)) is not None:
                yield file


_WITHOUT_GRAPH = 'run the workflow from scratch (on_existing="restart"), or delete it'
