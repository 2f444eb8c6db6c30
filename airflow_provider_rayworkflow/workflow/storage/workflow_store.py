"""What is stored of workflows: claims, graphs, statuses, checkpoints and leases.

Knows documents and keys, not who may write when: that is the manager's business. Nothing here
unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    UntrustedDataError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    load_frames,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, read_graph
from airflow_provider_rayworkflow.workflow.model.records import OnChange, StatusRecord
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.archives import ArchiveStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.claims import claim_put, latest_epoch, next_claim
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.journal import SEGMENT_BYTES, read_journal
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseStore
from airflow_provider_rayworkflow.workflow.storage.left_out import Report, log_left_out
from airflow_provider_rayworkflow.workflow.storage.log_pieces import LogPieces
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox
from airflow_provider_rayworkflow.workflow.storage.statuses import (
    latest_key,
    status_key,
    status_put,
)
from airflow_provider_rayworkflow.workflow.storage.values import ValueStore

log = get_logger(__name__)

Json = dict[str, Any]
_Buffer = bytes | bytearray | memoryview


class WorkflowStore:
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
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        signing: SigningKeys | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.bytes = store
        self.signing = signing
        self.leases = LeaseStore(store, signing=signing)
        self.values = ValueStore(store, signing=signing)
        self.logs = LogPieces(store, signing=signing)
        self.archives = ArchiveStore(store, signing=signing)
        self.events = EventStore(store, signing=signing)
        self.mailbox = Mailbox(store, signing=signing)
        self.segment_bytes = segment_bytes
        self._believed: dict[str, None] = {}

    # ---- claims and graphs

    def claim(
        self,
        workflow_id: str,
        *,
        after: int,
        manager_id: str,
        now: float,
        user_metadata: Json,
        graph: Graph | None = None,
        continues: Claim | None = None,
        on_change: OnChange | None = None,
        from_task: str = "",
    ) -> Claim | None:
        """Claim the epoch after ``after``; None if another manager claimed it first.

        One atomic write. With a graph, the claim carries it. The others are as for
        :func:`next_claim`.
        """
        claim = next_claim(
            workflow_id,
            after=after,
            manager_id=manager_id,
            now=now,
            user_metadata=user_metadata,
            has_graph=graph is not None,
            continues=continues,
            on_change=on_change,
            from_task=from_task,
        )
        put = claim_put(claim, graph, signing=self.signing)
        return claim if self.bytes.put_if_absent(put.key, put.data) else None

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
            with _advising(_WITHOUT_GRAPH):
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
        with _advising(_WITHOUT_GRAPH):
            body, frames = load_frames(key, "epoch", data, signing=self.signing)
            graph_body = body.pop("graph", None)
            graph = read_graph(key, graph_body, list(frames)) if graph_body else None
            with understanding(key, "epoch"):
                return well_typed(Claim(**body)), graph

    # ---- statuses

    def write_status(self, record: StatusRecord, *, replaces: StatusRecord | None = None) -> None:
        """Write a status, then delete the one that it replaces, if any: two writes.

        A crash in between leaves both; the later one counts. Written for an epoch that is no
        longer the latest, it changes nothing for any reader. A record with the number of one that is
        stored takes its place.

        :param replaces: None for nothing to delete: then it is one write.
        """
        put = status_put(record, signing=self.signing)
        self.bytes.put(put.key, put.data)
        if replaces is not None:
            self.bytes.delete([status_key(replaces)])

    def read_status(self, workflow_id: str) -> StatusRecord | None:
        """The status as written, None for an unknown workflow. One listing and one read."""
        return self.read_statuses(workflow_id)[0]

    def read_statuses(self, workflow_id: str) -> tuple[StatusRecord | None, list[str]]:
        """The status as written, and the keys of all its documents, with those that it replaces.

        :raises CorruptedDataError: when its documents are replaced faster than we read.
        """
        for _ in range(_MAX_READS):
            found = list(self._status_keys(keys.status_folder(workflow_id)))
            if not found:
                return None, []
            try:
                return self._load_status(max(found)), [name.key for name in found]
            except KeyNotFoundError:
                continue  # replaced between the listing and the read
        raise CorruptedDataError(keys.status_folder(workflow_id), "its documents keep vanishing")

    def latest_status(self, workflow_id: str) -> keys.StatusKey | None:
        """What the name of the status document says, None for an unknown workflow. One listing.

        That is known of a damaged one, too.
        """
        return latest_key(self.bytes, keys.quote_id(workflow_id))

    def read_status_at(self, key: keys.StatusKey) -> StatusRecord:
        """The status document that a listing has found; one read.

        :raises KeyNotFoundError: when it has been replaced since.
        """
        return self._load_status(key)

    def believe(self, key: keys.StatusKey) -> None:
        """Check that who knows the signing key wrote a status document of this name.

        For those who go by names alone. Without a key, nothing is read; with one, each name is read
        once.

        :raises DataLoadError: when the document is not signed, or damaged.
        :raises KeyNotFoundError: when it has been replaced since the listing.
        """
        if key.key in self._believed or not or_environment(self.signing):
            return
        self._load_status(key)
        if len(self._believed) >= _MAX_BELIEVED:
            self._believed.clear()
        self._believed[key.key] = None

    def list_statuses(self, report: Report | None = None) -> dict[str, keys.StatusKey]:
        """The latest status of every workflow by id, from one listing without a read each.

        Left out are those whose folder can't be listed, and those whose document can't be read
        while its name does not hold the id.

        :param report: told why one is left out; by default that is logged.
        """
        report, found = report or log_left_out, {}
        for key in self.list_segments(report).values():
            try:
                found[self.id_of(key)] = key
            except KeyNotFoundError:
                continue  # replaced since the listing
            except DataLoadError as exc:
                report(exc)
        return found

    def list_segments(self, report: Report | None = None) -> dict[str, keys.StatusKey]:
        """The latest status of every workflow by :func:`quote_id` of its id: one listing, no reads.

        :param report: told of each folder that can't be listed; the error's key is the folder's.
        """
        report = report or log_left_out
        latest: dict[str, keys.StatusKey] = {}
        for entry in self.bytes.list(keys.STATUSES):
            if entry.problem is not None:
                report(entry.problem)
            if (key := keys.parse_status_key(entry.key)) is None:
                continue
            known = latest.get(key.segment)
            if known is None or known < key:
                latest[key.segment] = key
        return latest

    def id_of(self, key: keys.StatusKey) -> str:
        """The workflow's id; a read where it is too long for the name.

        :raises KeyNotFoundError: when a read is needed and the status has been replaced since.
        :raises DataLoadError: when a read is needed and the document is damaged.
        """
        return keys.unquote_id(key.segment) or self._load_status(key).workflow_id

    def _status_keys(self, folder: str) -> Iterator[keys.StatusKey]:
        for entry in self.bytes.list(folder):
            if (key := keys.parse_status_key(entry.key)) is not None:
                yield key

    def _load_status(self, key: keys.StatusKey) -> StatusRecord:
        with _advising("delete the workflow"):
            data = self.bytes.get(key.key, 0, MAX_STATUS_BYTES + 1)
            if len(data) > MAX_STATUS_BYTES:
                raise CorruptedDataError(key.key, f"it has more than {MAX_STATUS_BYTES:,} bytes")
            body = load_line(key.key, "status", data, signing=self.signing)
            with understanding(key.key, "status"):
                record = StatusRecord.from_json(body)
                found = status_key(record)
            if found != key.key:
                raise CorruptedDataError(key.key, f"it is of {found!r:.300}")
        return record

    # ---- checkpoints

    def list_files(self, workflow_id: str) -> list[keys.WorkflowFile]:
        """Claims, journals and values of a workflow, in the order in which they count."""
        return sorted(self._files(workflow_id))

    def read_checkpoints(
        self,
        workflow_id: str,
        *,
        since_epoch: int = 0,
        files: Sequence[keys.WorkflowFile] | None = None,
    ) -> Checkpoints:
        """All committed records: one listing, and a read for each journal segment.

        A later epoch's record of a task counts more than an earlier one's. A large value whose
        object is missing or has another size than its record says is damaged.

        :param files: what :meth:`list_files` has found, if that has been asked already.
        """
        if files is None:
            files = self.list_files(workflow_id)
        return read_journal(self.bytes, files, since_epoch=since_epoch, signing=self.signing)

    # ---- whole workflows

    def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow, its status last, and the archives that it alone used."""
        self.archives.release(workflow_id)
        self.bytes.delete_folder(keys.workflow_folder(workflow_id))
        self.bytes.delete_folder(keys.events_folder(workflow_id))
        self.bytes.delete_folder(keys.submissions_folder(workflow_id))
        self.bytes.delete_folder(keys.answer_folder(workflow_id))
        self.bytes.delete_folder(keys.requests_folder(workflow_id))
        self.logs.delete(workflow_id)
        self.bytes.delete([keys.owner_key(workflow_id)])
        folder = keys.status_folder(workflow_id)
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
        """Delete claims, journals and values of a workflow, except those that the caller keeps."""
        files = list(self._files(workflow_id))
        self.bytes.delete(file.key for file in files if not unless(file))

    def _files(self, workflow_id: str) -> Iterable[keys.WorkflowFile]:
        for entry in self.bytes.list(keys.workflow_folder(workflow_id)):
            if (file := keys.parse_workflow_file(entry.key, entry.size)) is not None:
                yield file


#: No status document that we write comes near it: output, metadata, messages and names are bounded.
MAX_STATUS_BYTES = 8 * 1024 * 1024

_MAX_READS = 20
_MAX_BELIEVED = 100_000
_WITHOUT_GRAPH = 'run the workflow from scratch (on_existing="restart"), or delete it'


@contextmanager
def _advising(way_out: str) -> Iterator[None]:
    """Around reads without which a workflow can't go on: who hears of damage hears what to do.

    :param way_out: for those who have no copy of the object.
    """
    try:
        yield
    except UntrustedDataError:
        raise  # it says itself what to do
    except CorruptedDataError as exc:
        exc.message += f" Restore the object from a backup or an earlier version, or {way_out}."
        raise
