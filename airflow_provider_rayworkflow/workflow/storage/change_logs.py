"""Change logs: what managers, and visitors that act without one, have changed of workflows lately.

A log is one document, written anew with each flush. Readers find in a few documents what is active and what has
ended, however much is stored. See docs/storage.md.

A *look row* has no status: its writer is about to write one, or may have. Its readers read the status document.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_with_rest,
    rest_sum,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put
from airflow_provider_rayworkflow.workflow.storage.status_documents import Report

#: How long a log of what stands in the index stays, for those who look again and again.
KEPT_S = 600.0

# How many numbers of changes a block has.
_BLOCK = 64
# More than rows of the largest origins and ids take.
_MAX_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a log has of one workflow.

    :ivar seq: rises with each change of the log's writer.
    :ivar row: None for a look row.
    """

    seq: int
    segment: str
    row: IndexRow | None = None

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps([self.seq, self.segment, self.row and self.row.to_json()])

    @classmethod
    def from_json(cls, value: Any) -> Change:
        seq, segment, row = value
        return well_typed(cls(seq=seq, segment=segment, row=row and IndexRow.from_json(row)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeLog:
    """What one writer has changed lately: at most one change of each workflow, its latest.

    :ivar writer: the id of a manager, or of a visitor.
    :ivar changes: in the order of their ``seq``.
    :ivar seq: of its latest change, 0 for none; also where that is not in the log any more.
    :ivar forgotten: changes up to this ``seq`` may have left the log.
    :ivar taken: changes up to this ``seq`` stand in the index.
    :ivar version: of the index, when its first untaken change was not made yet: what came into the index later
        may be newer than the log.
    :ivar is_done: a visitor has done what it came for. A manager's log is done when it has closed.
    :ivar left_at: when a log of what stands in the index was written, in seconds since the epoch by its writer's
        clock; 0 for any other log.
    :ivar size: of its document as it was read, in bytes.
    """

    writer: str
    changes: Sequence[Change] = ()
    seq: int = 0
    forgotten: int = 0
    taken: int = 0
    version: int = 0
    is_done: bool = False
    left_at: float = 0.0
    size: int = field(default=0, compare=False)

    @property
    def untaken(self) -> list[Change]:
        """What does not stand in the index yet."""
        return [change for change in self.changes if change.seq > self.taken]


class PackedChanges:
    """The changes of a log as bytes, in blocks by their ``seq``: a write packs those blocks anew that changed."""

    def __init__(self) -> None:
        self._texts: dict[int, dict[int, str]] = {}
        self._packed: dict[int, bytes] = {}

    def add(self, change: Change) -> None:
        """Add a change, whose ``seq`` is greater than all others."""
        block = change.seq // _BLOCK
        self._texts.setdefault(block, {})[change.seq] = change.to_text()
        self._packed.pop(block, None)

    def remove(self, change: Change) -> None:
        """Remove one that was added."""
        block = change.seq // _BLOCK
        texts = self._texts[block]
        del texts[change.seq]
        self._packed.pop(block, None)
        if not texts:
            del self._texts[block]

    def blocks(self) -> dict[int, bytes]:
        """The packed blocks by number, in their order."""
        for block, texts in self._texts.items():
            if block not in self._packed:
                content = f"[{','.join(texts.values())}]"
                self._packed[block] = zlib.compress(content.encode(), 1)
        return {block: self._packed[block] for block in self._texts}


def change_log_put(
    log: ChangeLog, blocks: Mapping[int, bytes], *, signing: SigningKeys | None = None
) -> Put:
    """The write of a log.

    :param blocks: of :class:`PackedChanges`: its changes, in place of those of the log.
    """
    rest = b"".join(blocks.values())
    body = {
        **{name: getattr(log, name) for name in log.__slots__ if name not in ("changes", "size")},
        "blocks": [[block, len(packed)] for block, packed in blocks.items()],
        "rest": rest_sum(rest),
    }
    key = keys.change_log_key(log.writer)
    return Put(key, dump_document(key, "changes", body, [rest], signing=signing))


class ChangeLogs:
    """The change logs of all writers on one storage root.

    :param signing: as for :class:`WorkflowStore`.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self._bytes = store
        self._signing = signing

    def writers(self, report: Report | None = None) -> dict[str, int]:
        """Who has a log, each with the size of its document in bytes. One listing.

        :param report: told what is wrong with the folder.
        """
        found = {}
        for entry in self._bytes.list(keys.CHANGES):
            if entry.problem is not None and report is not None:
                report(entry.problem)
            if (writer := keys.writer_of_change_log(entry.key)) is not None:
                found[writer] = entry.size
        return found

    def read(self, writer: str, *, since: int = 0, only_untaken: bool = False) -> ChangeLog:
        """One log; one read.

        :param since: leave out changes up to this ``seq``, which the caller knows; unless later ones have left
            the log, then all changes are there that it has.
        :param only_untaken: leave out changes that stand in the index, as most of them do.
        :raises KeyNotFoundError: when the writer has no log (any more).
        :raises DataLoadError: when it is damaged.
        """
        key = keys.change_log_key(writer)
        data = self._bytes.get(key)
        body, rest = load_with_rest(key, "changes", data, signing=self._signing)
        with understanding(key, "changes"):
            if body["writer"] != writer or body.pop("rest") != rest_sum(rest):
                raise CorruptedDataError(key, "its changes are not whole, or another writer's")
            since = since if body["forgotten"] <= since else 0
            if only_untaken:
                since = max(since, body["taken"])
            found = _unpacked(key, body.pop("blocks"), rest, since)
            changes = tuple(Change.from_json(change) for change in found if change[0] > since)
            return well_typed(ChangeLog(**body, changes=changes, size=len(data)))

    def write(self, log: ChangeLog) -> None:
        """Write a log anew; one write.

        :raises DataSaveError: when that fails.
        """
        packed = PackedChanges()
        for change in log.changes:
            packed.add(change)
        put = change_log_put(log, packed.blocks(), signing=self._signing)
        self._bytes.put(put.key, put.data)

    def delete(self, writer: str) -> None:
        """Delete a log whose changes stand in the index."""
        self._bytes.delete([keys.change_log_key(writer)])


def _unpacked(
    key: str, blocks: Sequence[tuple[int, int]], rest: memoryview, since: int
) -> Iterator[Any]:
    """The changes in blocks that may have one after a ``seq``, as JSON."""
    start = 0
    for block, length in blocks:
        packed, start = rest[start : start + length], start + length
        if (block + 1) * _BLOCK - 1 > since:
            yield from json.loads(_unpacked_block(key, packed))


def _unpacked_block(key: str, packed: memoryview) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, _MAX_BLOCK_BYTES)
    except zlib.error as exc:
        raise CorruptedDataError(key, f"its changes can't be unpacked: {exc}") from exc
    if not unpacking.eof:
        raise CorruptedDataError(key, "its changes are cut off, or too large")
    return data
