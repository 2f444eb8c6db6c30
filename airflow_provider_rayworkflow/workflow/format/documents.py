"""The form of what we store: one line of JSON, and behind it frames of JSON with bytes.

.. code-block:: text

    {"body": {...}, "kind": "journal", "sum": "<crc32 of the body>", "v": 1}\\n
    <crc32 of header and payload> <header length> <payload length>\\n<header JSON><payload>\\n
    ...

With signing keys, the line has a ``"mac"`` too. Status documents and leases are only the line. Any
JSON parser reads the line of every document; only payloads are pickled, and only the runtime
unpickles them.
"""

from __future__ import annotations

import functools
import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints
from zlib import crc32

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.signing import (
    SIGNING_KEY_VARIABLE,
    SigningKeys,
    or_environment,
)

#: The format version in which documents are written, and the newest that is read.
VERSION = 1

Json = dict[str, Any]
T = TypeVar("T")
_Buffer = bytes | bytearray | memoryview
_FRAME = re.compile(rb"([0-9a-f]{8}) (\d{1,12}) (\d{1,15})\n")


def dump_line(kind: str, body: Json) -> bytes:
    """The document's line, with its end of line."""
    return _line(kind, _dumps(body))


def _line(kind: str, content: str) -> bytes:
    checksum = _crc(content.encode())
    return f'{{"body":{content},"kind":"{kind}","sum":"{checksum}","v":{VERSION}}}\n'.encode()


def dump_document(
    key: str,
    kind: str,
    body: Json,
    rest: Sequence[_Buffer] = (),
    *,
    signing: SigningKeys | None = None,
) -> tuple[_Buffer, ...]:
    """A document as an object of its own: signed if there is a key to sign with.

    :param signing: None for the keys of the environment.
    """
    keys = or_environment(signing)
    if not keys:
        return (dump_line(kind, body), *rest)
    content = _dumps(body)
    mac = keys.sign((key, kind, content), rest)
    line = _line(kind, content)
    return (b'%b,"mac":"%b"}\n' % (line[:-2], mac.encode()), *rest)


def document_size(
    kind: str, body: Json, rest: Sequence[_Buffer], *, signing: SigningKeys | None = None
) -> int:
    """How large :func:`dump_document` makes it."""
    keys = or_environment(signing)
    line = len(dump_line(kind, body)) + (_MAC_BYTES if keys else 0)
    return line + sum(memoryview(part).nbytes for part in rest)


_MAC_BYTES = len(b',"mac":""') + 64
# A graph lies in a document that is signed.
_UNSIGNED = frozenset({"graph"})


def _check_signature(
    key: str, kind: str, line: Json, rest: Iterable[_Buffer], signing: SigningKeys | None
) -> None:
    keys = or_environment(signing)
    if kind in _UNSIGNED or not keys:
        return
    if not keys.verify(line.get("mac"), (key, kind, _dumps(line["body"])), rest):
        raise UntrustedDataError(
            key,
            f"it is not signed with a key of {SIGNING_KEY_VARIABLE} (or of the connection's "
            "signing_secret), so nothing of it is believed or unpickled. If you trust it, add the key "
            "with which it was written behind the one that signs",
        )


def load_line(key: str, kind: str, data: bytes, *, signing: SigningKeys | None = None) -> Json:
    """Read a document that is only a line.

    :param signing: None for the keys of the environment.
    :raises CorruptedDataError: when it is not whole.
    :raises UntrustedDataError: when there are keys and none of them signed it.
    :raises DataLoadError: when a newer version of this package wrote it.
    """
    line, end = _load_line(key, kind, data)
    if end != len(data):
        raise CorruptedDataError(key, "there is something behind its end")
    _check_signature(key, kind, line, (), signing)
    body: Json = line["body"]
    return body


def load_with_rest(
    key: str, kind: str, data: bytes, *, signing: SigningKeys | None = None
) -> tuple[Json, memoryview]:
    """Read a document's line, with all that is behind it; see :func:`load_line`.

    Whether the rest is whole is the caller's to check, by a checksum in the line's body
    (:func:`rest_sum`): only a signature covers it here.
    """
    line, position = _load_line(key, kind, data)
    rest = memoryview(data)[position:]
    _check_signature(key, kind, line, [rest], signing)
    return line["body"], rest


def load_beginning(
    key: str,
    kind: str,
    data: bytes,
    more: Iterable[_Buffer],
    *,
    signing: SigningKeys | None = None,
) -> Json:
    """Read a document's line from its beginning; see :func:`load_line`.

    What is behind the line is looked at only where there are keys: the signature covers it.

    :param data: the beginning, with the whole line.
    :param more: what is behind that, piece by piece.
    """
    line, position = _load_line(key, kind, data)
    rest = chain([memoryview(data)[position:]], more)
    _check_signature(key, kind, line, rest, signing)
    body: Json = line["body"]
    return body


def rest_sum(rest: _Buffer) -> str:
    """The checksum of what is behind a document's line."""
    return f"{crc32(rest):08x}"


def dump_frame(header: Json, payload: Sequence[_Buffer] = ()) -> list[_Buffer]:
    """One frame as buffers to be written one after the other; the payload is not copied."""
    head = _dumps(header).encode()
    checksum = crc32(head)
    size = 0
    for part in payload:
        checksum = crc32(part, checksum)
        size += memoryview(part).nbytes
    return [b"%08x %d %d\n%b" % (checksum, len(head), size, head), *payload, b"\n"]


def content_sum(frame: Sequence[_Buffer]) -> str:
    """The checksum of a frame and the length of its payload: ``"1a2b3c4d-120"``, equal for equal ones."""
    checksum, _, length = bytes(frame[0]).partition(b"\n")[0].split()
    return f"{checksum.decode()}-{length.decode()}"


def load_frames(
    key: str, kind: str, data: bytes, *, signing: SigningKeys | None = None
) -> tuple[Json, Iterator[tuple[Json, memoryview]]]:
    """Read a document's line now and its frames on the way; see :func:`load_line`.

    The iterator raises :class:`CorruptedDataError` at the first frame that is not whole, after
    all that come before it.
    """
    line, position = _load_line(key, kind, data)
    _check_signature(key, kind, line, [memoryview(data)[position:]], signing)
    return line["body"], _frames(key, data, position)


def check_frame(key: str, kind: str, size: int, read: Callable[[int, int], bytes]) -> None:
    """Check a document of one frame without ever having it whole in memory.

    :param size: of the document.
    :param read: gives so many bytes from a position on.
    :raises CorruptedDataError: when it is not whole.
    """
    start = read(0, _PIECE_BYTES)
    _, position = _load_line(key, kind, start)
    match = _FRAME.match(start, position)
    if match is None or match.end() + int(match[2]) + int(match[3]) + 1 != size:
        raise CorruptedDataError(key, f"no frame of its size begins at byte {position}")
    checksum = 0
    for at in range(match.end(), size, _PIECE_BYTES):
        piece = read(at, min(_PIECE_BYTES, size - at))
        if at + _PIECE_BYTES >= size and piece[-1:] != b"\n":
            raise CorruptedDataError(key, f"the frame at byte {position} is cut off")
        content = piece[:-1] if at + _PIECE_BYTES >= size else piece
        checksum = crc32(content, checksum)
    if checksum != int(match[1], 16):
        raise CorruptedDataError(key, f"the frame at byte {position} has a wrong checksum")


_PIECE_BYTES = 8 * 1024 * 1024


@contextmanager
def understanding(key: str, kind: str) -> Iterator[None]:
    """Around what makes a record of a body: fields that are missing or strange are damage.

    :raises CorruptedDataError: for these.
    """
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as exc:
        raise CorruptedDataError(key, f"its content is not that of a {kind} ({exc!r})") from exc


def well_typed(record: T) -> T:
    """The record, a dataclass, if what its fields hold is of the types that they declare.

    Numbers are counts, times or durations: none is negative, endless or absurdly large. Looks no
    deeper than the fields: containers may hold anything.

    :raises TypeError: if not, with the field.
    """
    kind: type = type(record)
    for name, allowed in _field_types(kind).items():
        value = getattr(record, name)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise TypeError(f"{name} is {reprlib.repr(value)}")
        if isinstance(value, (int, float)) and not _is_sane(value, is_time=float in allowed):
            raise ValueError(f"{name} is {reprlib.repr(value)}")
    return record


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A record that is its fields, as JSON."""

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """The record of :meth:`to_json`; errors as :func:`well_typed`."""
        return well_typed(cls(**value))


def _is_sane(number: float, *, is_time: bool) -> bool:
    return 0 <= number <= (MAX_TIME if is_time else _LARGEST_COUNT)  # NaN is neither


#: The end of the year 9999, in seconds since the epoch: `datetime` and calendars end there.
MAX_TIME = 253_402_300_799
_LARGEST_COUNT = 2**63 - 1


@functools.cache
def _field_types(kind: type) -> dict[str, tuple[type, ...]]:
    types = {name: tuple(_plain_types(hint)) for name, hint in get_type_hints(kind).items()}
    return {name: allowed for name, allowed in types.items() if object not in allowed}


def _plain_types(hint: Any) -> Iterator[type]:
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _plain_types(part)
    elif get_origin(hint) is Literal:
        yield from {type(value) for value in get_args(hint)}
    elif hint is Any:
        yield object
    else:
        yield get_origin(hint) or hint
        if hint is float:  # JSON has no difference
            yield int


def _frames(key: str, data: bytes, position: int) -> Iterator[tuple[Json, memoryview]]:
    view = memoryview(data)
    while position < len(data):
        match = _FRAME.match(data, position)
        if match is None:
            raise CorruptedDataError(key, f"no frame begins at byte {position}")
        head_size, payload_size = int(match[2]), int(match[3])
        start = match.end()
        end = start + head_size + payload_size
        if end + 1 > len(data) or data[end : end + 1] != b"\n":
            raise CorruptedDataError(key, f"the frame at byte {position} is cut off")
        if crc32(view[start:end]) != int(match[1], 16):
            raise CorruptedDataError(key, f"the frame at byte {position} has a wrong checksum")
        try:
            header = _loads(data[start : start + head_size].decode())
        except (ValueError, RecursionError) as exc:
            raise CorruptedDataError(
                key, f"the header of the frame at byte {position} is no JSON ({exc!r})"
            ) from exc
        if not isinstance(header, dict):
            raise CorruptedDataError(
                key, f"the header of the frame at byte {position} is no object"
            )
        yield header, view[start + head_size : end]
        position = end + 1


def _load_line(key: str, kind: str, data: bytes) -> tuple[Json, int]:
    end = data.find(b"\n") + 1
    if not end:
        raise CorruptedDataError(key, "its first line is cut off")
    try:
        document = json.loads(data[:end])
        body, checksum, version = document["body"], document["sum"], document["v"]
        found = document["kind"]
        is_whole = isinstance(body, dict) and _is_whole(data[:end], body, checksum)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptedDataError(key, "its first line is not one of our documents") from None
    if not isinstance(version, int) or version > VERSION:
        raise DataLoadError(
            f"{key!r} has the format version {version!r}, and this version of "
            f"airflow-provider-rayworkflow reads up to {VERSION}. Upgrade the package here.",
            key=key,
        )
    if found != kind:
        raise CorruptedDataError(key, f"it is of kind {found!r} instead of {kind!r}")
    if not is_whole:
        raise CorruptedDataError(key, "its first line has a wrong checksum")
    return document, end


def _is_whole(line: bytes, body: Json, checksum: object) -> bool:
    # As we write it, the line has the very text of the body. Others may have written it anew.
    start, end = len(_BEFORE_BODY), line.rfind(b',"kind":"')
    if line.startswith(_BEFORE_BODY) and _crc(line[start:end]) == checksum:
        return True
    return _crc(_dumps(body).encode()) == checksum


_BEFORE_BODY = b'{"body":'

# `json.loads` looks first which encoding it is.
_loads = json.JSONDecoder().decode
# `json.dumps` makes one anew for each call that is not as plain as can be.
_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode


def _crc(content: bytes) -> str:
    return f"{crc32(content):08x}"
