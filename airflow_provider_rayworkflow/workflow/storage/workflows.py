"""What is stored of workflows: claims, graphs, statuses, checkpoints and leases.

Knows documents and keys, not who may write when: that is the manager's business. Nothing here
unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any, NamedTuple

from airflow_provider_rayworkflow.workflow.documents import (
    check_frame,
    content_sum,
    document_size,
    dump_document,
    dump_frame,
    load_frames,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    StorageError,
    UntrustedDataError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.graph import Graph, read_graph
from airflow_provider_rayworkflow.workflow.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model import (
    Blob,
    Encoding,
    Fingerprints,
    Form,
    JsonOutput,
    OnChange,
    Result,
    StatusRecord,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.bytes import ByteStore, Put
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, LeaseWatch, Verdict

log = get_logger(__name__)

Json = dict[str, Any]
_Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One epoch of a workflow: who owns it, and which graph it runs.

    :ivar graph_epoch: the epoch whose document has the graph.
    :ivar base_epoch: checkpoints of earlier epochs are of a run that was given up.
    :ivar on_change: what becomes of committed tasks that have changed.
    :ivar restarts: from which tasks the workflow was started again, each with the epoch of that:
        earlier checkpoints of the task, and of what depends on it, don't count.
    :ivar traceparent: the trace that its tasks' spans join, ``""`` for none.
    """

    workflow_id: str
    epoch: int
    manager_id: str
    claimed_at: float
    graph_epoch: int
    base_epoch: int
    user_metadata: Json
    on_change: OnChange = "reuse"
    restarts: Mapping[str, int] = field(default_factory=dict)
    traceparent: str = ""


class TaskRecord(NamedTuple):
    """One committed fact about a task, a frame of a journal.

    :ivar result: of a task that ended with a value or a caught error.
    :ivar graph: of a task that was replaced by a continuation; the graph's bytes.
    :ivar task_ids: the ids given to the tasks of that graph.
    :ivar catches: with a graph: the task catches exceptions, also of the continuation.
    :ivar is_failure: the result's bytes are the exception that failed the workflow. Kept for
        people and ``__cause__``; it is no checkpoint.
    :ivar is_revoked: the blob of the result proved to be damaged. The task that made it, this one
        or one of its continuation, has to run again.
    :ivar json_output: of the task that gave the workflow's output.
    :ivar failure: with an exception as the result: the same as text, for readers that must not
        unpickle.
    :ivar fingerprints: what it was made of; None if it was written before that was noted.
    :ivar printed: the end of what the task printed, ``""`` where that is not known.
    :ivar epoch: under which it was written, known when it was read.
    """

    task_id: str
    times: TaskTimes | None = None
    result: Result | None = None
    graph: bytes | None = None
    task_ids: tuple[str, ...] = ()
    catches: bool = False
    is_failure: bool = False
    is_revoked: bool = False
    json_output: JsonOutput | None = None
    failure: TaskFailure | None = None
    fingerprints: Fingerprints | None = None
    printed: str = ""
    epoch: int = 0

    def to_frame(self) -> list[_Buffer]:
        header: Json = {"task": self.task_id}
        payload: list[_Buffer] = []
        if self.times:
            header["times"] = self.times.to_json()
        if self.is_failure:
            header["failure"] = True
        if self.is_revoked:
            header["revoked"] = True
        if self.json_output:
            header["json_output"] = self.json_output.to_json()
        if self.failure:
            header["error"] = self.failure.to_json()
        if self.fingerprints:
            header["made_of"] = self.fingerprints
        if self.printed:
            header["printed"] = self.printed
        if self.graph is not None:
            header["task_ids"] = self.task_ids
            header["catches"] = self.catches
            payload = [self.graph]
        if self.result is not None:
            header["form"] = self.result.form.value
            header["encoding"] = self.result.encoding.value
            if self.result.inline is not None:
                payload = [self.result.inline]
            elif self.result.blob is not None:
                header["blob"] = astuple(self.result.blob)
        return dump_frame(header, payload)

    @classmethod
    def from_frame(cls, header: Json, payload: memoryview, *, epoch: int = 0) -> TaskRecord:
        times, made_of = header.get("times"), header.get("made_of")
        printed = _text(header["printed"]) if "printed" in header else ""
        fingerprints = made_of and Fingerprints._make(made_of)
        if "task_ids" in header:
            return cls(
                task_id=_text(header["task"]),
                times=times and TaskTimes.from_json(times),
                graph=bytes(payload),
                task_ids=_texts(header["task_ids"]),
                catches=header["catches"],
                fingerprints=fingerprints,
                printed=printed,
                epoch=epoch,
            )
        blob, output = header.get("blob"), header.get("json_output")
        error = header.get("error")
        return cls(
            task_id=_text(header["task"]),
            times=times and TaskTimes.from_json(times),
            is_failure=header.get("failure", False),
            is_revoked=header.get("revoked", False),
            json_output=output and JsonOutput.from_json(output),
            failure=error and TaskFailure.from_json(error),
            fingerprints=fingerprints,
            printed=printed,
            epoch=epoch,
            result=Result(
                form=Form(header["form"]),
                encoding=Encoding(header["encoding"]),
                inline=None if blob else bytes(payload),
                blob=well_typed(Blob(**dict(zip(_BLOB, blob, strict=False)))) if blob else None,
            ),
        )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise TypeError(f"{values!r:.100} has no texts")
    return tuple(_text(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r:.100} is no text")
    return value


_BLOB = tuple(field.name for field in fields(Blob))


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """All that is committed of a workflow.

    :ivar records: the latest record of each task, in the order in which they were committed.
    :ivar failures: the exception of each task that failed in the latest epoch that had one.
    :ivar created: the tasks of all continuations, also of those that are of no use any more.
    :ivar damaged: what was found torn or changed; its tasks count as not committed.
    :ivar lost: of these tasks, the ones whose names are known.
    """

    records: dict[str, TaskRecord] = field(default_factory=dict)
    failures: dict[str, TaskRecord] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)
    damaged: list[CorruptedDataError] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)


#: Told why something is left out of an answer about many workflows.
Report = Callable[[StorageError], None]


def log_left_out(problem: StorageError) -> None:
    """The :data:`Report` of those who give no other."""
    log.warning("A workflow is left out: %s", problem)


class WorkflowStore:
    """Workflows on one storage root.

    :param signing: the keys with which documents are signed and checked; None for those of the
        environment.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self.bytes = store
        self.signing = signing
        self.lease_watch = LeaseWatch()
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
        """Claim the epoch after ``after``; None if somebody else was first.

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

    def read_graph(self, workflow_id: str, epoch: int) -> Graph:
        """The graph that an epoch runs; see :meth:`read_run`."""
        return self.read_run(workflow_id, epoch)[1]

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
        """Write a status, then delete the one that it replaces: two writes.

        A crash in between leaves both; the later one counts. Written for an epoch that is no
        longer the latest, it changes nothing for any reader.
        """
        self.rewrite_status(record)
        if replaces is not None:
            self.bytes.delete([status_key(replaces)])

    def rewrite_status(self, record: StatusRecord) -> None:
        """Write a status again, with what has changed of it besides the status; one write."""
        put = status_put(record, signing=self.signing)
        self.bytes.put(put.key, put.data)

    def read_status(self, workflow_id: str) -> StatusRecord | None:
        """The status as written, None if there is none. One listing and one read."""
        return self.read_statuses(workflow_id)[0]

    def read_statuses(self, workflow_id: str) -> tuple[StatusRecord | None, list[str]]:
        """The same, and the keys of all documents that are there, with those that it replaces."""
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
        """What the name of the status document says, None if there is none. One listing.

        That is known of a damaged one, too.
        """
        return max(self._status_keys(keys.status_folder(workflow_id)), default=None)

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
        """The same by :func:`~.keys.quote_id` of the id, for long ids too without a read.

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
        sizes = {file.key: file.size for file in files}
        found = Checkpoints()
        journals = [file for file in files if file.kind == "journal" and file.epoch >= since_epoch]
        for file, data in zip(journals, self._read_each(journals), strict=True):
            try:
                for record in _records_of(file, data, self.signing):
                    self._take(record, sizes, found)
            except CorruptedDataError as exc:
                found.damaged.append(exc)
        return found

    def _read_each(self, files: Sequence[keys.WorkflowFile]) -> Iterator[bytes]:
        wanted = [file.key for file in files]
        at_once = min(self.bytes.reads_at_once, len(wanted))
        if at_once <= 1:
            yield from map(self.bytes.get, wanted)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="journals") as threads:
            for start in range(0, len(wanted), at_once):  # no more than these are held at once
                yield from threads.map(self.bytes.get, wanted[start : start + at_once])

    def _take(self, record: TaskRecord, sizes: dict[str, int], found: Checkpoints) -> None:
        if record.is_failure:
            found.failures[record.task_id] = record
            return
        blob = record.result.blob if record.result else None
        if record.is_revoked:
            for task_id in [name for name, other in found.records.items() if _has(other, blob)]:
                del found.records[task_id]
                found.lost.add(task_id)
            return
        if blob and (size := sizes.get(blob.key)) != blob.size:
            what = "it is missing" if size is None else f"it has {size} bytes, not {blob.size}"
            found.damaged.append(CorruptedDataError(blob.key, what))
            found.lost.add(record.task_id)
            return
        found.created.update(record.task_ids)
        found.records.pop(record.task_id, None)
        found.records[record.task_id] = record

    def write_value(
        self,
        workflow_id: str,
        *,
        epoch: int,
        task_id: str,
        attempt: int,
        parts: Sequence[_Buffer],
    ) -> Blob:
        """Write a large value; one write. Called by the worker that made it."""
        body, frame = {"task": task_id}, dump_frame({}, parts)
        size = document_size("value", body, frame, signing=self.signing)
        key = keys.value_key(workflow_id, epoch, task_id, attempt, size)
        self.bytes.put(key, dump_document(key, "value", body, frame, signing=self.signing))
        return Blob(key=key, size=size, sum=content_sum(frame))

    def copy_value(self, blob: Blob, workflow_id: str, *, epoch: int, task_id: str) -> Blob:
        """Give a large value to another workflow, too, which keeps it when this one is deleted.

        :raises CorruptedDataError: when it is missing.
        """
        key = keys.value_key(workflow_id, epoch, task_id, 0, blob.size)
        try:
            if or_environment(self.signing):  # a signature is good for one key
                self.bytes.put(key, self._signed_anew(blob, key))
            else:
                self.bytes.copy(blob.key, key)
        except KeyNotFoundError as exc:
            raise CorruptedDataError(blob.key, "it is missing") from exc
        return Blob(key=key, size=blob.size, sum=blob.sum or blob.key)

    def _signed_anew(self, blob: Blob, key: str) -> tuple[_Buffer, ...]:
        body, frames = load_frames(
            blob.key, "value", self.bytes.get(blob.key), signing=self.signing
        )
        content = [part for header, data in frames for part in dump_frame(header, [data])]
        return dump_document(key, "value", body, content, signing=self.signing)

    def read_value(self, blob: Blob) -> memoryview:
        """Read a large value's bytes.

        :raises CorruptedDataError: when it is missing, torn or changed.
        """
        try:
            data = self.bytes.get(blob.key)
        except KeyNotFoundError as exc:
            raise CorruptedDataError(blob.key, "it is missing") from exc
        _, frames = load_frames(blob.key, "value", data, signing=self.signing)
        for _, payload in frames:
            return payload
        raise CorruptedDataError(blob.key, "it is empty")

    def find_damage(self, result: Result) -> CorruptedDataError | None:
        """What is wrong with a result's large value, None if it is whole. Reads it piece by piece."""
        blob = result.blob
        if blob is None:
            return None
        try:
            check_frame(
                blob.key, "value", blob.size, lambda start, n: self.bytes.get(blob.key, start, n)
            )
        except KeyNotFoundError:
            return CorruptedDataError(blob.key, "it is missing")
        except CorruptedDataError as exc:
            return exc
        return None

    # ---- leases

    def write_lease(self, lease: Lease) -> None:
        key = keys.lease_key(lease.manager_id)
        self.bytes.put(key, dump_document(key, "lease", lease.to_json(), signing=self.signing))

    def read_lease(self, manager_id: str) -> Lease | None:
        key = keys.lease_key(manager_id)
        try:
            data = self.bytes.get(key)
        except KeyNotFoundError:
            return None
        with understanding(key, "lease"):
            return Lease.from_json(load_line(key, "lease", data, signing=self.signing))

    def list_leases(self) -> list[Lease]:
        """The leases of all managers, dead ones included; those that can't be read are left out."""
        leases = []
        for entry in self.bytes.list(keys.LEASES):
            try:
                lease = self.read_lease(entry.key.rpartition("/")[2].removesuffix(".json"))
            except DataLoadError as exc:
                log.warning("A manager's lease can't be read: %s", exc)
                continue
            if lease is not None:
                leases.append(lease)
        return leases

    def delete_lease(self, manager_id: str) -> None:
        self.bytes.delete([keys.lease_key(manager_id)])

    # ---- whole workflows

    def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow, its status last."""
        self.bytes.delete_folder(keys.workflow_folder(workflow_id))
        self.bytes.delete_folder(keys.events_folder(workflow_id))
        self.bytes.delete_folder(keys.submissions_folder(workflow_id))
        self.bytes.delete_folder(keys.requests_folder(workflow_id))
        self.bytes.delete([keys.owner_key(workflow_id)])
        self.bytes.delete_folder(keys.status_folder(workflow_id))

    def delete_earlier(self, workflow_id: str, epoch: int) -> None:
        """Delete what epochs before this one left: a run that was given up."""
        files = [file.key for file in self._files(workflow_id) if 0 < file.epoch < epoch]
        statuses = self._status_keys(keys.status_folder(workflow_id))
        self.bytes.delete([*files, *(key.key for key in statuses if key.epoch < epoch)])
        EventStore(self.bytes, signing=self.signing).delete_given_out(workflow_id)

    def delete_files(
        self, workflow_id: str, *, unless: Callable[[keys.WorkflowFile], bool]
    ) -> None:
        """Delete claims, journals and values of a workflow, but not those that are to be kept."""
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


def _records_of(
    file: keys.WorkflowFile, data: bytes, signing: SigningKeys | None
) -> Iterator[TaskRecord]:
    key = file.key
    body, frames = load_frames(key, "journal", data, signing=signing)
    with understanding(key, "journal"):
        for header, payload in frames:
            yield TaskRecord.from_frame(header, payload, epoch=file.epoch)
        size = int(body["size"])
    missing = size - (len(data) - data.index(b"\n") - 1)
    if missing:
        raise CorruptedDataError(key, f"{missing} bytes of its records are missing")


def _has(record: TaskRecord, blob: Blob | None) -> bool:
    return blob is not None and record.result is not None and record.result.blob == blob


def latest_epoch(files: Iterable[keys.WorkflowFile]) -> int:
    """The latest claimed epoch among a workflow's files, 0 for none."""
    return max((file.epoch for file in files if file.kind == "epoch"), default=0)


def next_claim(
    workflow_id: str,
    *,
    after: int,
    manager_id: str,
    now: float,
    user_metadata: Json,
    has_graph: bool,
    continues: Claim | None = None,
    on_change: OnChange | None = None,
    from_task: str = "",
    traceparent: str = "",
) -> Claim:
    """The claim of the epoch after ``after``, which :func:`claim_put` writes.

    :param has_graph: it is written with a graph.
    :param continues: the claim whose checkpoints count (and whose graph, if none is given).
    :param on_change: None: as in that claim, else ``"reuse"``.
    :param from_task: a task whose checkpoint does not count any more.
    :param traceparent: ``""``: as in that claim.
    """
    restarts = dict(continues.restarts) if continues else {}
    return Claim(
        workflow_id=workflow_id,
        epoch=after + 1,
        manager_id=manager_id,
        claimed_at=now,
        graph_epoch=continues.graph_epoch if continues and not has_graph else after + 1,
        base_epoch=continues.base_epoch if continues else after + 1,
        user_metadata=user_metadata,
        on_change=on_change or (continues.on_change if continues else "reuse"),
        restarts=restarts | ({from_task: after + 1} if from_task else {}),
        traceparent=traceparent or (continues.traceparent if continues else ""),
    )


def claim_put(claim: Claim, graph: Graph | None, *, signing: SigningKeys | None = None) -> Put:
    """The write that makes a claim; if its object is new, the claim holds."""
    body: Json = {name: getattr(claim, name) for name in claim.__slots__}
    data: list[_Buffer] = []
    if graph is not None:
        body["graph"] = graph.to_json()
        data = graph.dump_blobs()
    key = keys.epoch_key(claim.workflow_id, claim.epoch)
    return Put(key, dump_document(key, "epoch", body, data, signing=signing), must_be_new=True)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
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
    def until_certain(self) -> Found:
        """The same for callers that look again and again: an owner that may live counts as alive."""
        return replace(self, status=self.record.status) if self.owner_may_live else self

    @property
    def has_lost_owner(self) -> bool:
        return self.record.status is not self.status

    @property
    def honest_record(self) -> StatusRecord:
        return replace(self.record, status=self.status) if self.has_lost_owner else self.record


class HonestStatuses:
    """Statuses as they are, not as they were written: an owner must be alive.

    Reads each manager's lease once. Make a new one for each question. An owner that may live, and
    that this process has not watched for a lease time, counts as the time in its lease says; nobody
    takes a workflow over by that, see :meth:`may_be_replaced`.

    :param now: seconds since the epoch.
    :param patient: for a reader that looks again and again, and does something about a lost owner:
        one that may live counts as alive, until it is certain.
    :param report: told of leases that can't be read; by default that is logged.
    """

    def __init__(
        self,
        store: WorkflowStore,
        *,
        now: float,
        patient: bool = False,
        report: Report | None = None,
    ) -> None:
        self._store = store
        self._report = report or _log_lease
        self._now = now
        self._alive = ("alive", "doubtful") if patient else ("alive",)
        self._verdicts: dict[str, Verdict] = {}

    def read(self, workflow_id: str) -> Found | None:
        """How a workflow stands, None if nothing is stored. Up to three reads."""
        record = self._store.read_status(workflow_id)
        if record is None:
            return None
        return self.found(record)

    def found(self, record: StatusRecord, documents: Sequence[str] = ()) -> Found:
        """A record as it was read, with how its owner stands."""
        status = self.of(record.status, record.manager_id)
        has_lost_owner = status is not record.status
        return Found(
            record=record,
            status=status,
            documents=documents,
            owner_may_live=has_lost_owner and not self.may_be_replaced(record.manager_id),
        )

    def read_name(self, workflow_id: str) -> Found | None:
        """The same without a look into the document, which may be damaged: fit for a deletion."""
        name = self._store.latest_status(workflow_id)
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

    def of(self, status: WorkflowStatus, manager_id: str) -> WorkflowStatus:
        """RUNNING or PENDING only while the owner's lease is alive, else RESUMABLE."""
        if not status.is_active:
            return status
        return status if self.is_alive(manager_id) else WorkflowStatus.RESUMABLE

    def is_alive(self, manager_id: str) -> bool:
        """True while the manager's lease is. False does not say that it may be replaced."""
        return self._verdict(manager_id) in self._alive

    def may_be_replaced(self, manager_id: str) -> bool:
        """True if the manager is dead: gone, or without a renewal for as long as its lease lasts."""
        return self._verdict(manager_id) == "dead"

    def _verdict(self, manager_id: str) -> Verdict:
        if manager_id not in self._verdicts:
            self._verdicts[manager_id] = self._judge(manager_id)
        return self._verdicts[manager_id]

    def _judge(self, manager_id: str) -> Verdict:
        watch = self._store.lease_watch
        if watch.is_known_dead(manager_id):
            return "dead"
        asked_at = watch.clock()
        try:
            lease = self._store.read_lease(manager_id)
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


def list_workflows(
    store: WorkflowStore, honest: HonestStatuses, report: Report | None = None
) -> list[tuple[str, WorkflowStatus, keys.StatusKey]]:
    """Every workflow's id, honest status, and what the name of its status document says.

    Sorted by id, those that wait or waited for a slot last. With a signing key, what is not signed
    is left out.

    :param report: told why one is left out; by default that is logged.
    """
    report = report or log_left_out
    found = [
        (workflow_id, honest.of(key.status, key.manager_id), key)
        for workflow_id, key in store.list_statuses(report).items()
        if _is_believed(store, key, report)
    ]
    return sorted(found, key=lambda item: (item[2].status is WorkflowStatus.PENDING, item[0]))


def _is_believed(store: WorkflowStore, key: keys.StatusKey, report: Report) -> bool:
    try:
        store.believe(key)
    except KeyNotFoundError:
        return False  # replaced since the listing
    except DataLoadError as exc:
        report(exc)
        return False
    return True


class JournalWriter:
    """Appends records to a workflow's journal; one write commits all that are given.

    The current segment is written again with each commit, until it is so large that the next one
    begins. So a workflow has few objects, however many tasks commit one by one.
    """

    def __init__(
        self,
        store: ByteStore,
        workflow_id: str,
        epoch: int,
        *,
        signing: SigningKeys | None = None,
    ) -> None:
        self._store = store
        self._signing = signing
        self._workflow_id = workflow_id
        self._epoch = epoch
        self._segment = 0
        self._content = bytearray()
        self._committed = 0
        self._added = 0
        self._again = 0

    def commit(self, records: Sequence[TaskRecord]) -> None:
        """Write the records; they are durable when this returns. One write, one caller at a time.

        If the write fails, the segment is as before or has them all.
        """
        put = self.next_put(records)
        try:
            self._store.put(put.key, put.data)
        except BaseException:
            self.take_back()
            raise

    def next_put(self, records: Sequence[TaskRecord]) -> Put:
        """The write that commits the records; if it fails, :meth:`take_back` is to be called."""
        added = bytearray()
        for record in records:
            for part in record.to_frame():
                added += part
        self._added += len(added)
        if len(self._content) > self._most_again():
            self._segment += 1
            self._content = bytearray()
        self._committed = len(self._content)
        self._again += self._committed
        self._content += added
        # The size shows a loss that ends between two records.
        body = {"epoch": self._epoch, "size": len(self._content)}
        key = keys.journal_key(self._workflow_id, self._epoch, self._segment)
        return Put(key, dump_document(key, "journal", body, [self._content], signing=self._signing))

    def _most_again(self) -> int:
        """How large the segment may be to be written again with what is added now.

        Where each read is a request, a resume shall have few. Tasks that end faster than such a
        store writes add much at once; all of that may be written again a few times.
        """
        if self._store.reads_at_once == 1:
            return _SEGMENT_BYTES
        budget = _TIMES_AGAIN * self._added - self._again
        return max(_SEGMENT_BYTES, min(budget, _LARGEST_SEGMENT_BYTES))

    def take_back(self) -> None:
        """Forget the records of the latest write."""
        self._content = self._content[: self._committed]


_SEGMENT_BYTES = 64 * 1024
_LARGEST_SEGMENT_BYTES = 4 * 1024 * 1024  # object stores take so much in one request
_TIMES_AGAIN = 3
