"""Appends records to a workflow's journal, and reads them back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_frames,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put


def read_journal(
    store: ByteStore,
    files: Sequence[keys.WorkflowFile],
    *,
    since_epoch: int,
    signing: SigningKeys | None,
    taken: Callable[[Checkpoints, TaskRecord], None] | None = None,
    held_bytes: int = sys.maxsize,
) -> Checkpoints:
    """All committed records of a workflow; a read for each journal segment.

    :param files: what lies in the workflow's folder, in the order in which it counts.
    :param taken: told of each record when it is among the checkpoints; may put another one in its place.
    :param held_bytes: no more segments are read, and so held, at the same time than have so many bytes, or one.
    """
    sizes = {file.key: file.size for file in files}
    found = Checkpoints()
    journals = [file for file in files if file.kind == "journal" and file.epoch >= since_epoch]
    for file, data in zip(journals, _read_each(store, journals, held_bytes), strict=True):
        try:
            for record in _records_of(file, data, signing):
                found.take(record, sizes)
                if taken is not None:
                    taken(found, record)
        except CorruptedDataError as exc:
            found.damaged.append(exc)
    return found


def _read_each(
    store: ByteStore, files: Sequence[keys.WorkflowFile], held_bytes: int
) -> Iterator[bytes]:
    for batch in _batches(files, store.reads_at_once, held_bytes):
        yield from map_at_once(store, store.get, batch)


def _batches(files: Sequence[keys.WorkflowFile], most: int, most_bytes: int) -> Iterator[list[str]]:
    """The keys of segments that are read at the same time."""
    batch: list[str] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= most or size + file.size > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(file.key)
        size += file.size
    if batch:
        yield batch


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


#: How large a segment of a journal becomes, in bytes.
SEGMENT_BYTES = 64 * 1024


class JournalWriter:
    """Appends records to a workflow's journal; one write commits all that are given.

    The current segment is written again with each commit, until it is so large that the next one
    begins. So a workflow has few objects, however many tasks commit one by one.

    :param segment_bytes: how large that is; more where each read is a request.
    """

    def __init__(
        self,
        store: ByteStore,
        workflow_id: str,
        epoch: int,
        *,
        signing: SigningKeys | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._store = store
        self._signing = signing
        self._segment_bytes = segment_bytes
        self._key = partial(keys.journal_key, workflow_id, epoch)
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
        """The write that commits the records; if it fails, the caller calls :meth:`take_back`."""
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
        key = self._key(self._segment)
        return Put(key, dump_document(key, "journal", body, [self._content], signing=self._signing))

    def _most_again(self) -> int:
        """How large the segment may be to be written again with what is added now.

        Where each read is a request, a resume shall have few. Tasks that end faster than such a
        store writes add much at once; all of that may be written again a few times.
        """
        if self._store.reads_at_once == 1:
            return self._segment_bytes
        budget = _TIMES_AGAIN * self._added - self._again
        return max(self._segment_bytes, min(budget, _LARGEST_SEGMENT_BYTES))

    def take_back(self) -> None:
        """Forget the records of the latest write."""
        self._content = self._content[: self._committed]


_LARGEST_SEGMENT_BYTES = 4 * 1024 * 1024  # object stores take so much in one request
_TIMES_AGAIN = 3
