"""Users' values as bytes: JSON where that loses nothing, else pickle with its large buffers beside it.

The only module that unpickles. A reader that must not (Airflow's side) never imports it.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cloudpickle

from airflow_provider_rayworkflow.workflow.model import Encoding, JsonOutput

_Buffer = bytes | bytearray | memoryview

#: Given an object, returns what ``__reduce__`` would, or NotImplemented for the usual way.
Override = Callable[[Any], Any]

#: Larger outputs are not repeated in the status document. Airflow's XCom suffers from more.
MAX_JSON_OUTPUT_BYTES = 64 * 1024

_MAX_JSON_ITEMS = 1_000
_MAX_JSON_INT_BITS = 1_000  # Python turns no int of more than 4,300 digits into text
_SIZES = struct.Struct(">Q")
# `json.dumps` makes one anew for each call that is not as plain as can be.
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_loads = json.JSONDecoder().decode  # `json.loads` looks first which encoding it is


class Encoded(NamedTuple):
    """An encoded value as buffers to be written one after the other.

    :ivar size: the sum of the buffers, in bytes.
    """

    encoding: Encoding
    parts: Sequence[_Buffer]
    size: int


def encode(value: Any, *, override: Override | None = None) -> Encoded:
    """Encode a value; large buffers (numpy, Arrow) are not copied.

    :param override: how to pickle objects that need care, object references for one.
    """
    if _is_plain_json(value):
        data = _dumps(value).encode()
        return Encoded(encoding=Encoding.JSON, parts=(data,), size=len(data))
    parts = _pickle(value, override)
    return Encoded(
        encoding=Encoding.PICKLE, parts=parts, size=sum(memoryview(p).nbytes for p in parts)
    )


def decode(encoding: Encoding, data: _Buffer) -> Any:
    """Decode what :func:`encode` made. Large buffers of the value are views of ``data``."""
    if encoding is Encoding.JSON:
        return _loads(str(data, "utf-8"))
    view = memoryview(data)
    (count,) = _SIZES.unpack_from(view)
    sizes = struct.unpack_from(f">{count}Q", view, _SIZES.size)
    parts, start = [], _SIZES.size * (count + 1)
    for size in sizes:
        parts.append(view[start : start + size])
        start += size
    return pickle.loads(parts[0], buffers=parts[1:])


def json_output(value: Any) -> JsonOutput:
    """The value for readers that must not unpickle, or why they don't get it.

    Tuples become lists, as JSON has no other sequence.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        return JsonOutput(
            problem=f"the output of type {type(value).__name__} is not JSON ({exc}); return JSON "
            "types from the last task, or store the value and return where it is"
        )
    if len(text) > MAX_JSON_OUTPUT_BYTES:
        return JsonOutput(
            problem=f"the output has {len(text)} bytes of JSON, the limit is "
            f"{MAX_JSON_OUTPUT_BYTES}; store the value and return where it is"
        )
    return JsonOutput(value=json.loads(text))


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, with a say in how some objects are reduced."""

    def __init__(
        self,
        file: io.BytesIO,
        *,
        override: Override | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._override = override

    def reducer_override(self, obj: Any) -> Any:
        if self._override is not None:
            reduced = self._override(obj)
            if reduced is not NotImplemented:
                return reduced
        return super().reducer_override(obj)


def dumps(value: Any, *, override: Override | None = None) -> bytes:
    """Pickle something of ours or of the user into one piece."""
    with io.BytesIO() as file:
        Pickler(file, override=override).dump(value)
        return file.getvalue()


def _pickle(value: Any, override: Override | None) -> list[_Buffer]:
    outside: list[memoryview] = []
    with io.BytesIO() as file:
        callback = lambda buffer: outside.append(buffer.raw())  # noqa: E731 returns None: take it
        Pickler(file, override=override, buffer_callback=callback).dump(value)
        parts: list[_Buffer] = [file.getvalue(), *outside]
    sizes = [memoryview(part).nbytes for part in parts]
    return [struct.pack(f">{len(sizes) + 1}Q", len(sizes), *sizes), *parts]


def is_plain_scalar(value: Any) -> bool:
    """True if it is a scalar and JSON gives the very same back."""
    if type(value) is int:
        return value.bit_length() <= _MAX_JSON_INT_BITS
    if type(value) is str:
        return value.isascii() or _is_encodable(value)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is bool or value is None


def _is_plain_json(value: Any) -> bool:
    """True if JSON gives the very same value back, and looking is cheap."""
    pending, seen = [value], 0
    containers: set[int] = set()
    while pending:
        item = pending.pop()
        seen += 1
        if seen > _MAX_JSON_ITEMS:
            return False
        kind = type(item)
        if kind is list or kind is dict:
            if id(item) in containers:
                return False  # JSON would make two of it
            containers.add(id(item))
            pending.extend(item)
            if kind is dict:
                if any(type(key) is not str for key in item):
                    return False
                pending.extend(item.values())
        elif not is_plain_scalar(item):
            return False
    return True


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
