"""The result of a map as it is stored: which items it has, and where the result of each one is.

It is no pickle: which stored values it refers to can be read where nothing may be unpickled.

The bytes begin with a line, the *stamp*: what stands for the content, and how many items gave a value and
how many failed. JSON follows, and behind that the results that have no object of their own. A map over more
than :data:`PIECE_ITEMS` items is stored in pieces; then the entries of the whole are these pieces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import understanding, well_typed
from airflow_provider_rayworkflow.workflow.model.records import (
    Blob,
    Encoding,
    Form,
    Result,
    TaskFailure,
)

Key = str | int | float | bool | None

#: How many items have their results in one piece.
PIECE_ITEMS = 1_000

_MAX_FAILURE_LENGTH = 300


class Stamp(NamedTuple):
    """What the first line of a stored map says.

    :ivar content: stands for the items' results, 16 hex digits.
    :ivar values: how many items gave a value.
    :ivar failed: how many failed.
    """

    content: str
    values: int
    failed: int

    def __str__(self) -> str:
        return f"{self.content} {self.values} {self.failed}"

    @classmethod
    def of(cls, result: Result) -> Stamp:
        """The stamp of a stored map, without a look at the map."""
        with understanding("the result of a map", "stamp"):
            content, values, failed = result.content.split(" ")
            return cls(content, int(values), int(failed))


class MapEntry(NamedTuple):
    """An item, or a piece of a large map.

    :ivar key: of the item; of a piece its number.
    :ivar result: None of an item that failed.
    :ivar failure: why it failed, as text.
    """

    key: Key
    result: Result | None = None
    failure: str = ""

    @property
    def stamp(self) -> Stamp:
        """Of a piece."""
        if self.result is None:
            raise CorruptedDataError("the result of a map", "it lacks a piece")
        return Stamp.of(self.result)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMap:
    """The result of a map as it is stored.

    :ivar has_pieces: the entries are pieces, else items.
    """

    entries: Sequence[MapEntry]
    has_pieces: bool = False

    @classmethod
    def of_items(cls, keys: Sequence[Key], results: Sequence[Result]) -> StoredMap:
        """Of the results of items, in their order.

        :param results: that of a failed one is what :func:`failed_result` has made.
        """
        entries = [
            MapEntry(key, failure=_failure_text(result))
            if is_failed(result)
            else MapEntry(key, _kept(result))
            for key, result in zip(keys, results, strict=True)
        ]
        return cls(entries=entries)

    @classmethod
    def of_pieces(cls, pieces: Sequence[Result]) -> StoredMap:
        """Of stored pieces, in their order."""
        entries = [MapEntry(number, _kept(piece)) for number, piece in enumerate(pieces)]
        return cls(entries=entries, has_pieces=True)

    @property
    def stamp(self) -> Stamp:
        if self.has_pieces:
            stamps = [entry.stamp for entry in self.entries]
            content = _content(["pieces", *[stamp.content for stamp in stamps]])
            values, failed = sum(one.values for one in stamps), sum(one.failed for one in stamps)
            return Stamp(content, values, failed)
        failed = sum(entry.result is None for entry in self.entries)
        parts = [
            [entry.key, entry.failure if entry.result is None else entry.result.identity]
            for entry in self.entries
        ]
        return Stamp(_content(["items", *parts]), len(self.entries) - failed, failed)

    def to_bytes(self) -> bytes:
        payload: list[bytes] = []
        rows = [_row(entry, payload) for entry in self.entries]
        header = json.dumps({"pieces": self.has_pieces, "entries": rows}, separators=(",", ":"))
        return b"".join([f"{self.stamp}\n{header}\n".encode(), *payload])

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> StoredMap:
        """Read what :meth:`to_bytes` made.

        :raises CorruptedDataError: when it has another form.
        """
        with understanding("the result of a map", "map"):
            content = bytes(data)
            stamp_end = content.index(b"\n")
            start = content.index(b"\n", stamp_end + 1) + 1
            header = json.loads(content[stamp_end:start])
            entries = []
            for row in header["entries"]:
                entry = _entry(row, content, start)
                if entry.result is not None and entry.result.inline is not None:
                    start += len(entry.result.inline)
                entries.append(entry)
            return cls(entries=entries, has_pieces=bool(header["pieces"]))


def is_failed(result: Result) -> bool:
    """True for what :func:`failed_result` has made: exceptions that tasks catch are pickled."""
    return result.form is Form.CAUGHT_ERROR and result.encoding is Encoding.JSON


def failed_result(failure: TaskFailure) -> Result:
    """What stands for the result of an item that failed."""
    text = json.dumps(str(failure)[:_MAX_FAILURE_LENGTH])
    return Result(form=Form.CAUGHT_ERROR, encoding=Encoding.JSON, inline=text.encode())


NOT_RUN = Result(
    form=Form.CAUGHT_ERROR, encoding=Encoding.JSON, inline=b'"It did not run: another task failed."'
)


def _failure_text(result: Result) -> str:
    text = json.loads(result.inline or b'""')
    return text if isinstance(text, str) else str(text)


def _kept(result: Result) -> Result:
    return result._replace(ref=None)  # what is in memory is gone when this is read


def _content(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _row(entry: MapEntry, payload: list[bytes]) -> list[Any]:
    result = entry.result
    if result is None:
        return [entry.key, entry.failure]
    if result.inline is not None:
        payload.append(result.inline)
        where: Any = len(result.inline)
    elif result.blob is not None:
        where = astuple(result.blob)
    else:
        raise TypeError(
            f"The result of {entry.key!r} has no checkpoint, and what is gathered is read from there: take "
            "checkpoint=False away from its task, or give the nodes to a task of your own."
        )
    return [entry.key, result.form.value, result.encoding.value, where]


def _entry(row: list[Any], content: bytes, start: int) -> MapEntry:
    if len(row) == 2:
        return MapEntry(row[0], failure=str(row[1]))
    key, form, encoding, where = row
    if isinstance(where, int):
        if not 0 <= where <= len(content) - start:
            raise ValueError("the results are not all there")
        result = Result(Form(form), Encoding(encoding), inline=content[start : start + where])
    else:
        key_, size, sum_ = where
        blob = well_typed(Blob(key=key_, size=size, sum=sum_))
        result = Result(Form(form), Encoding(encoding), blob=blob)
    return MapEntry(key, result)
