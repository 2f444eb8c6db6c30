"""Users' values as bytes: JSON where that loses nothing, else pickle with its large buffers beside it.

The only module that unpickles. A reader that must not (Airflow's side) never imports it.
"""

from __future__ import annotations

import builtins
import io
import json
import math
import pickle
import struct
import traceback
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cloudpickle

from airflow_provider_rayworkflow.workflow.exceptions import text_of
from airflow_provider_rayworkflow.workflow.format.deep_stack import call_with_deep_stack
from airflow_provider_rayworkflow.workflow.format.nesting import is_nested_deeper
from airflow_provider_rayworkflow.workflow.model.records import Encoding, JsonOutput

_Buffer = bytes | bytearray | memoryview

#: Given an object, returns what ``__reduce__`` would, or NotImplemented for the usual way.
Override = Callable[[Any], Any]

#: Larger outputs are not repeated in the status document. Airflow's XCom suffers from more.
MAX_JSON_OUTPUT_BYTES = 64 * 1024

#: What is nested deeper is no JSON for us: readers with less stack could not parse it.
MAX_JSON_DEPTH = 100

_MAX_JSON_ITEMS = 1_000
_MAX_JSON_INT_BITS = 1_000  # Python turns no int of more than 4,300 digits into text
_SIZES = struct.Struct(">Q")
# `json.dumps` makes one anew for each call that is not as plain as can be.
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_loads = json.JSONDecoder().decode  # `json.loads` looks first which encoding it is


class Encoded(NamedTuple):
    """An encoded value as buffers to be written one after the other.

    :ivar size: the sum of the buffers, in bytes.
    :ivar has_objects: it has objects of classes that may fail to be made again from a pickle.
    """

    encoding: Encoding
    parts: Sequence[_Buffer]
    size: int
    has_objects: bool = False

    def read(self) -> Any:
        """The value, made again without a copy of its large buffers, which are read-only."""
        if self.encoding is Encoding.JSON:
            return decode(self.encoding, self.parts[0])
        _, pickled, *outside = self.parts
        buffers = [memoryview(part).toreadonly() for part in outside]
        return pickle.loads(pickled, buffers=buffers)


def encode(value: Any, *, override: Override | None = None) -> Encoded:
    """Encode a value; large buffers (numpy, Arrow) are not copied.

    :param override: how to pickle objects that need care, object references for one.
    """
    if _is_plain_json(value):
        data = _dumps(value).encode()
        return Encoded(encoding=Encoding.JSON, parts=(data,), size=len(data))
    outside: list[_Buffer] = []
    # It returns None, which tells pickle to leave the buffer out.
    pickled, has_objects = _pickle(value, override, lambda buffer: outside.append(buffer.raw()))
    sizes = [memoryview(part).nbytes for part in (pickled, *outside)]
    header = struct.pack(f">{len(sizes) + 1}Q", len(sizes), *sizes)
    return Encoded(
        encoding=Encoding.PICKLE,
        parts=(header, pickled, *outside),
        size=len(header) + sum(sizes),
        has_objects=has_objects,
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
        is_small = len(text) <= MAX_JSON_OUTPUT_BYTES
        plain = json.loads(text, object_pairs_hook=_without_collisions) if is_small else None
    except BaseException as exc:  # also what the author's own classes raise when they are walked
        return JsonOutput(
            problem=f"the output of type {type(value).__name__} is not JSON ({text_of(exc)}); "
            "return JSON types from the last task, or store the value and return where it is"
        )
    if not is_small:
        return JsonOutput(
            problem=f"the output has {len(text)} bytes of JSON, the limit is "
            f"{MAX_JSON_OUTPUT_BYTES}; store the value and return where it is"
        )
    if is_nested_deeper(plain, MAX_JSON_DEPTH):
        return JsonOutput(
            problem=f"the output is nested more than {MAX_JSON_DEPTH} deep; return something "
            "flatter, or store the value and return where it is"
        )
    return JsonOutput(value=plain)


def _without_collisions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"as JSON, where each key is text, several keys would be {twice!a:.100}")
    return keys


class _Reducing:
    """What our picklers add to cloudpickle: a say in how some objects are reduced.

    :ivar has_objects: see :class:`Encoded`.
    """

    has_objects = False
    _override: Override | None = None

    def reducer_override(self, obj: Any) -> Any:
        if not self.has_objects:
            self.has_objects = _may_not_be_readable(obj)
        if self._override is not None:
            reduced = self._override(obj)
            if reduced is not NotImplemented:
                return reduced
        if type(obj) is types.BuiltinFunctionType and _is_replaced(obj):
            return getattr, (builtins, obj.__name__)
        return cloudpickle.Pickler.reducer_override(self, obj)


def _is_replaced(function: types.BuiltinFunctionType) -> bool:
    """True for a function of Python that another one stands in for: Ray replaces ``print`` when tasks print."""
    if function.__self__ is not builtins:
        return False
    return getattr(builtins, function.__name__, function) is not function


class Pickler(_Reducing, cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
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


class _DeepPickler(_Reducing, pickle._Pickler):
    """As :class:`Pickler`, in Python: values may be nested deeper than the stack of C allows."""

    dispatch_table = cloudpickle.Pickler.dispatch_table
    _function_reduce = cloudpickle.Pickler._function_reduce
    _dynamic_function_reduce = cloudpickle.Pickler._dynamic_function_reduce
    _function_getnewargs = cloudpickle.Pickler._function_getnewargs

    def __init__(self, file: io.BytesIO, *, override: Any, buffer_callback: Any) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._override = override
        self.globals_ref: dict[int, Any] = {}  # cloudpickle's


def dumps(value: Any, *, override: Override | None = None) -> bytes:
    """Pickle something of ours or of the user into one piece."""
    return _pickle(value, override, None)[0]


def _pickle(value: Any, override: Override | None, take_buffer: Any) -> tuple[bytes, bool]:
    """The pickle of a value, and whether it has objects as :class:`Encoded` tells.

    :param take_buffer: gets the large buffers in place of the pickle; None leaves them in it.
    """

    def dump(kind: Callable[..., Any]) -> tuple[bytes, bool]:
        buffers: list[pickle.PickleBuffer] = []
        with io.BytesIO() as file:
            pickler = kind(
                file,
                override=override,
                buffer_callback=None if take_buffer is None else buffers.append,
            )
            pickler.dump(value)
            for buffer in buffers:
                take_buffer(buffer)
            return file.getvalue(), pickler.has_objects

    try:
        return dump(Pickler)
    except pickle.PicklingError as exc:
        if not _is_nested_too_deep(exc):
            raise
    return call_with_deep_stack(lambda: dump(_DeepPickler))


def _is_nested_too_deep(exc: BaseException) -> bool:
    """True if the value is nested deeper than pickle's own stack; not where its code recurses."""
    if not isinstance(exc.__cause__, RecursionError):
        return False
    calls = traceback.walk_tb(exc.__cause__.__traceback__)  # pickle's own are none of Python
    return sum(1 for _ in calls) < _MANY_CALLS


_MANY_CALLS = 100


def _may_not_be_readable(obj: Any) -> bool:
    kind = type(obj)
    owner = obj if kind is type or kind is types.FunctionType else kind
    module = getattr(owner, "__module__", None)
    return type(module) is not str or module.partition(".")[0] not in _READABLE


#: What these packages make can be read if it can be pickled, or holds only what is looked at itself.
_READABLE = frozenset(
    {"builtins", "copyreg", "datetime", "decimal", "fractions", "uuid", "pathlib", "collections"}
    | {"numpy", "pandas", "pyarrow", "polars", "scipy", "torch"}
)


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
    if type(value) is not list and type(value) is not dict:
        return is_plain_scalar(value)
    seen = 0
    level: list[Any] = [value]
    containers: set[int] = set()
    for _ in range(MAX_JSON_DEPTH + 1):
        inside: list[Any] = []
        seen += len(level)
        if seen > _MAX_JSON_ITEMS:
            return False
        for item in level:
            kind = type(item)
            if kind is list or kind is dict:
                if id(item) in containers:
                    return False  # JSON would make two of it
                containers.add(id(item))
                inside.extend(item)
                if kind is dict:
                    if any(type(key) is not str for key in item):
                        return False
                    inside.extend(item.values())
            elif not is_plain_scalar(item):
                return False
        if not inside:
            return True
        level = inside
    return False


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
