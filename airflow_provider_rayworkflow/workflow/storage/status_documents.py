"""The status documents of workflows: their writes, and reads by their names and by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    StorageError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put

log = get_logger(__name__)

#: Told why something is left out of an answer about many workflows.
Report = Callable[[StorageError], None]


def log_left_out(problem: StorageError) -> None:
    """The :data:`Report` of those who give no other."""
    log.warning("A workflow is left out: %s", problem)


def status_put(record: StatusRecord, *, signing: SigningKeys | None = None) -> Put:
    """The write of a status; see :meth:`WorkflowStore.write_status`."""
    key = status_key(record)
    return Put(key, dump_document(key, "status", record.to_json(), signing=signing))


def status_key(record: StatusRecord) -> str:
    """The key of a status document."""
    return keys.status_key(
        record.workflow_id,
        epoch=record.epoch,
        number=record.number,
        status=record.status,
        manager_id=record.manager_id,
    ).key


class StatusDocuments:
    """Reads the statuses on one storage root; :class:`.WorkflowStore` is one.

    :param signing: as for :class:`.WorkflowStore`.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self.bytes = store
        self.signing = signing
        self._believed: dict[str, None] = {}

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
        return self.latest_of_segment(keys.quote_id(workflow_id))

    def latest_of_segment(self, segment: str) -> keys.StatusKey | None:
        """As :meth:`latest_status`, by :func:`quote_id` of the workflow's id."""
        return max(self._status_keys(keys.status_folder_of(segment)), default=None)

    def read_row(self, segment: str) -> IndexRow | None:
        """A workflow as its status document has it now, None for nothing. One listing and one read.

        :raises DataLoadError: when the document is damaged.
        """
        for _ in range(_MAX_READS):
            if (key := self.latest_of_segment(segment)) is None:
                return None
            try:
                return IndexRow.of(self._load_status(key), segment)
            except KeyNotFoundError:
                continue  # replaced between the listing and the read
        raise CorruptedDataError(keys.status_folder_of(segment), "its documents keep vanishing")

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
        latest: dict[str, keys.StatusKey] = {}
        for key in self.iter_names(report):
            known = latest.get(key.segment)
            if known is None or known < key:
                latest[key.segment] = key
        return latest

    def iter_names(self, report: Report | None = None) -> Iterator[keys.StatusKey]:
        """The names of all status documents, also of those that are replaced. One listing, which is not held.

        :param report: as for :meth:`list_segments`.
        """
        report = report or log_left_out
        for entry in self.bytes.list(keys.STATUSES):
            if entry.problem is not None:
                report(entry.problem)
            if (key := keys.parse_status_key(entry.key)) is not None:
                yield key

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
        with advising("delete the workflow"):
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


#: No status document that we write comes near it: output, metadata, messages and names are bounded.
MAX_STATUS_BYTES = 8 * 1024 * 1024

_MAX_READS = 20
_MAX_BELIEVED = 100_000


@contextmanager
def advising(way_out: str) -> Iterator[None]:
    """Around reads without which a workflow can't go on: adds a remedy to the message about damage.

    :param way_out: for those who have no copy of the object.
    """
    try:
        yield
    except UntrustedDataError:
        raise  # it says itself what to do
    except CorruptedDataError as exc:
        exc.message += f" Restore the object from a backup or an earlier version, or {way_out}."
        raise
