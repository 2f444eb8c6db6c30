"""The log of a workflow's tasks, in pieces: each is an object of its own, written once.

A piece is the line of a document and, behind it, a line of JSON for each line of the log, so any
reader of JSON lines reads it. The body of the document says of which workflow, epoch and number it
is, and has the checksum of the rest; where there is a signing key, the signature covers all of it.

A reader keeps a :class:`LogCursor` and gets each line once. What it has is never written again: pieces
are whole when they appear, and come in the order of their numbers.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_with_rest,
    rest_sum,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine, read_line
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put
from airflow_provider_rayworkflow.workflow.storage.keys import LogFile

#: What a writer puts into one piece, in bytes. A little more may come of it.
PIECE_BYTES = 1024 * 1024
#: A larger piece is not of our writing; it is left out.
MAX_PIECE_BYTES = 8 * 1024 * 1024

_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode


class LogCursor(NamedTuple):
    """How far a reader is: after so many lines of a piece.

    :ivar line: how many lines of the piece it has had; -1: all of them, however many.
    """

    epoch: int = 0
    number: int = 0
    line: int = -1

    def __str__(self) -> str:
        """For JSON and addresses, as :meth:`parse` takes it."""
        return ".".join(map(str, self))

    @classmethod
    def parse(cls, text: object) -> LogCursor:
        """The cursor of a text; the beginning of the log for what is none."""
        found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        return cls(*map(int, found.groups())) if found else cls()


_CURSOR = re.compile(r"(\d{1,9})\.(\d{1,9})\.(-1|\d{1,9})", re.ASCII)


#: Before all lines.
BEGINNING = LogCursor()


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRead:
    """What one call has read.

    :ivar cursor: for the next call.
    :ivar is_all: False: there is more already; call again.
    :ivar damaged: why pieces are left out, each with its name; the cursor is behind them.
    :ivar is_cut: lines before these are left out (:meth:`LogPieces.read_last`).
    """

    lines: list[LogLine]
    cursor: LogCursor
    is_all: bool = True
    damaged: list[str] = field(default_factory=list)
    is_cut: bool = False


class LogPieces:
    """The logs of the workflows on one storage.

    :param signing: the keys of the documents; None for those of the environment.
    :param read_bytes: how much of a log one call reads, in bytes of pieces; the next call goes on there.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        signing: SigningKeys | None = None,
        read_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self._store = store
        self._signing = signing
        self._read_bytes = read_bytes

    # ---- writing

    def put(self, workflow_id: str, epoch: int, number: int, lines: Sequence[LogLine]) -> Put:
        """The write of a piece. Who runs the epoch numbers its pieces from 1.

        The same piece may be written again where it is not known whether a write has worked.
        """
        key = keys.log_key(workflow_id, epoch, number)
        rest = "".join(f"{_dumps(line.to_json())}\n" for line in lines).encode()
        body = {
            "workflow_id": workflow_id,
            "epoch": epoch,
            "number": number,
            "lines": len(lines),
            "rest_sum": rest_sum(rest),
        }
        return Put(key, dump_document(key, "log", body, [rest], signing=self._signing))

    def make_room(self, workflow_id: str, epoch: int, most_bytes: int = 0) -> tuple[int, int]:
        """Delete the oldest pieces of earlier epochs until the rest takes no more than so many bytes.

        :returns: how many bytes the rest takes, and how many pieces were deleted.
        :raises StorageError: when the storage does not answer.
        """
        files = self.files(workflow_id)
        total = sum(file.size for file in files)
        old: list[str] = []
        for file in files:
            if total <= most_bytes or file.epoch >= epoch:
                break
            old.append(file.key)
            total -= file.size
        if old:
            self._store.delete(old)
        return total, len(old)

    def delete(self, workflow_id: str) -> None:
        """Delete a log.

        :raises StorageError: when it can't be listed or deleted.
        """
        self._store.delete_folder(keys.logs_folder(workflow_id))

    # ---- reading

    def files(self, workflow_id: str) -> list[LogFile]:
        """The pieces of a log, in the order of their lines. One listing.

        :raises DataLoadError: when it can't be listed.
        """
        found = self._store.list(keys.logs_folder(workflow_id))
        files = (keys.parse_log_file(entry.key, entry.size) for entry in found)
        return sorted(file for file in files if file is not None)

    def read(
        self,
        workflow_id: str,
        after: LogCursor = BEGINNING,
        *,
        task_id: str | None = None,
        most_lines: int = sys.maxsize,
        most_text: int = sys.maxsize,
    ) -> LogRead:
        """Read on from a cursor: one listing, and a read for each new piece.

        :param task_id: only lines of this task.
        :param most_lines: return no more lines than this.
        :param most_text: return no more lines when they have so many characters.
        :raises DataLoadError: when the log can't be listed, or a piece can't be read that may be
            whole.
        """
        lines: list[LogLine] = []
        damaged: list[str] = []
        cursor, size, text = after, 0, 0
        for file in self.files(workflow_id):
            place = file.epoch, file.number
            if place < after[:2] or (place == after[:2] and after.line < 0):
                continue
            had = after.line if place == after[:2] else 0
            if size >= self._read_bytes or len(lines) >= most_lines:
                return LogRead(lines=lines, cursor=cursor, is_all=False, damaged=damaged)
            size += file.size if file.size <= MAX_PIECE_BYTES else 0  # which is not read
            cursor = LogCursor(*place)
            for at, line in enumerate(self._read_piece(workflow_id, file, damaged)):
                if at < had or (task_id is not None and line.task_id != task_id):
                    continue
                if len(lines) >= most_lines or text >= most_text:
                    cursor = LogCursor(*place, at)
                    return LogRead(lines=lines, cursor=cursor, is_all=False, damaged=damaged)
                lines.append(line)
                text += len(line.text)
        return LogRead(lines=lines, cursor=cursor, damaged=damaged)

    def read_last(
        self,
        workflow_id: str,
        most_lines: int,
        *,
        task_id: str | None = None,
        most_text: int = sys.maxsize,
    ) -> LogRead:
        """Read the last lines of a log; as much of it is looked through as one call reads.

        :param most_text: return no more lines when they have so many characters.
        :raises DataLoadError: as :meth:`read`.
        """
        files = self.files(workflow_id)
        lines: deque[LogLine] = deque()
        damaged: list[str] = []
        size, text, is_cut = 0, 0, False
        for file in reversed(files):
            if size >= self._read_bytes or len(lines) >= most_lines or text >= most_text:
                is_cut = True
            if is_cut:
                break
            size += file.size if file.size <= MAX_PIECE_BYTES else 0  # which is not read
            for line in reversed(self._read_piece(workflow_id, file, damaged)):
                if task_id is not None and line.task_id != task_id:
                    continue
                if len(lines) >= most_lines or text >= most_text:
                    is_cut = True
                    break
                lines.appendleft(line)
                text += len(line.text)
        return LogRead(
            lines=list(lines),
            cursor=LogCursor(files[-1].epoch, files[-1].number) if files else BEGINNING,
            damaged=damaged,
            is_cut=is_cut,
        )

    def _read_piece(self, workflow_id: str, file: LogFile, damaged: list[str]) -> list[LogLine]:
        """The lines of a piece. Of one that is damaged none, and why goes to ``damaged``."""
        try:
            return list(self._load(workflow_id, file))
        except KeyNotFoundError:
            pass  # deleted since the listing
        except DataLoadError as exc:
            if exc.is_transient:
                raise
            damaged.append(str(exc))
        return []

    def _load(self, workflow_id: str, file: LogFile) -> Iterator[LogLine]:
        key = file.key
        data = self._store.get(key, 0, MAX_PIECE_BYTES + 1) if file.size <= MAX_PIECE_BYTES else b""
        if max(file.size, len(data)) > MAX_PIECE_BYTES:
            raise CorruptedDataError(key, f"it has more than {MAX_PIECE_BYTES:,} bytes")
        body, rest = load_with_rest(key, "log", data, signing=self._signing)
        with understanding(key, "log"):
            if body["rest_sum"] != rest_sum(rest):
                raise ValueError("its lines have a wrong checksum")
            own_key = keys.log_key(body["workflow_id"], body["epoch"], body["number"])
            if own_key != key or body["workflow_id"] != workflow_id:
                raise ValueError(f"it is the piece {own_key!r:.300}")
            start = len(data) - len(rest)
            while start < len(data):
                end = data.find(b"\n", start) + 1 or len(data)
                yield read_line(json.loads(data[start:end]))
                start = end
