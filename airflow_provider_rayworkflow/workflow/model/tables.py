"""Arrays and tables by their values, for fingerprints: however they were built, read or laid out.

Their pickles tell more than their values: the order in memory, blocks that columns share, chunks,
bytes behind missing values. Libraries are not imported here: who has a value of one has it loaded.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from typing import Any

#: So much of an array is laid out anew at once.
_PIECE_BYTES = 16 * 1024 * 1024


def by_values(value: Any) -> Any:
    """What a value of numpy, pandas or pyarrow consists of; NotImplemented for anything else.

    Parts may be such values again, and plain ones. Two that are equal have equal parts.
    """
    cls: type = type(value)
    reader = _reader_of(cls)
    return reader(value) if reader else NotImplemented


@functools.lru_cache(maxsize=1_000)
def _reader_of(cls: type) -> Callable[[Any], Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, numpy.ndarray):
        return functools.partial(_array, numpy)
    pandas = sys.modules.get("pandas")
    if pandas is not None and issubclass(cls, _pandas_types(pandas)):
        return functools.partial(_of_pandas, pandas)
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and issubclass(cls, _arrow_types(arrow)):
        return functools.partial(_of_arrow, arrow)
    return None


# ---- numpy


def _array(numpy: Any, array: Any) -> Any:
    kind = type(array)
    if isinstance(array, numpy.ma.MaskedArray):
        content = _content(numpy, numpy.asarray(array.filled()))
        mask = _content(numpy, numpy.ma.getmaskarray(array))
        return _name(array), content, mask, array.fill_value
    if kind.__reduce__ is not numpy.ndarray.__reduce__:
        return NotImplemented  # it has something of its own
    return _name(array), _content(numpy, numpy.asarray(array))


def _content(numpy: Any, array: Any) -> Any:
    dtype = array.dtype
    about = repr(dtype), array.shape
    if dtype.names:  # between fields there may be bytes that mean nothing
        return about, [_content(numpy, array[name]) for name in dtype.names]
    if dtype.hasobject or dtype.kind == "T":
        return about, array.ravel().tolist()
    digest = hashlib.sha256()
    if array.nbytes and array.flags.c_contiguous:
        digest.update(array.reshape(-1).view("u1"))
    elif array.nbytes:
        rows = max(1, _PIECE_BYTES * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            piece = numpy.ascontiguousarray(array[start : start + rows])
            digest.update(piece.reshape(-1).view("u1"))
    return about, digest.digest()


# ---- pandas


def _pandas_types(pandas: Any) -> tuple[type, ...]:
    names = ("DataFrame", "Series", "Index")
    found = [getattr(pandas, name) for name in names if hasattr(pandas, name)]
    extensions = getattr(getattr(pandas, "api", None), "extensions", None)
    return (*found, extensions.ExtensionArray) if extensions else tuple(found)


def _of_pandas(pandas: Any, value: Any) -> Any:
    if isinstance(value, pandas.DataFrame):
        return _about(value), value.columns, value.index, _columns(value)
    if isinstance(value, pandas.Series):
        return _about(value), [value.name], value.index, _values(value)
    if isinstance(value, pandas.MultiIndex):
        levels = [value.get_level_values(number) for number in range(value.nlevels)]
        return "MultiIndex", list(value.names), levels
    if isinstance(value, pandas.Index):
        freq = getattr(value, "freq", None)
        return "Index", list(value.names), str(freq), _values(value)
    return _extension(pandas, value)


def _about(value: Any) -> Any:
    own = {name: getattr(value, name, None) for name in value._metadata if name != "name"}
    return _name(value), own, dict(value.attrs), value.flags.allows_duplicate_labels


def _columns(frame: Any) -> Any:
    """Columns of one plain type in one piece: frames may have very many."""
    dtypes = frame.dtypes
    kinds = list(dtypes.unique())
    if len(kinds) == 1 and _is_plain(kinds[0]):
        return frame.to_numpy().T
    parts = []
    for kind in kinds:
        places = (dtypes == kind).to_numpy().nonzero()[0]
        columns = frame.iloc[:, places]
        parts.append(
            (places.tolist(), columns.to_numpy().T)
            if _is_plain(kind)
            else [
                (place, _values(columns.iloc[:, number]))
                for number, place in enumerate(places.tolist())
            ]
        )
    return parts


def _is_plain(dtype: Any) -> bool:
    return type(dtype).__module__.startswith("numpy")


def _values(value: Any) -> Any:
    return value.to_numpy() if _is_plain(value.dtype) else value.array


def _extension(pandas: Any, array: Any) -> Any:
    about = _name(array), str(array.dtype), len(array)
    if isinstance(array, pandas.Categorical):
        return about, array.categories, bool(array.ordered), array.codes
    if isinstance(array, pandas.arrays.IntervalArray):
        return about, array.left, array.right
    if hasattr(array, "asi8"):  # times
        return about, array.asi8
    if hasattr(array.dtype, "numpy_dtype") and hasattr(array, "_mask"):
        dtype = array.dtype.numpy_dtype
        return about, array.isna(), array.to_numpy(dtype=dtype, na_value=dtype.type(0))
    if hasattr(array, "_pa_array"):
        return about, array.__arrow_array__()
    if array.dtype.kind == "O" and hasattr(array, "to_numpy"):
        return about, array.to_numpy(dtype=object)
    return NotImplemented


# ---- pyarrow


def _arrow_types(arrow: Any) -> tuple[type, ...]:
    names = ("Table", "RecordBatch", "ChunkedArray", "Array")
    return tuple(getattr(arrow, name) for name in names if hasattr(arrow, name))


def _of_arrow(arrow: Any, value: Any) -> Any:
    if isinstance(value, arrow.Table | arrow.RecordBatch):
        schema = str(value.schema), dict(value.schema.metadata or {})
        return _name(value), schema, list(value.columns)
    return "Array", str(value.type), len(value), _arrow_content(arrow, value)


def _arrow_content(arrow: Any, value: Any) -> Any:
    types, kind = arrow.types, value.type
    if types.is_dictionary(kind):
        value, kind = value.cast(kind.value_type), kind.value_type
    if types.is_string(kind) or types.is_binary(kind):
        kind = arrow.large_string() if types.is_string(kind) else arrow.large_binary()
        value = value.cast(kind)  # all of it in one array, however long
    is_text = types.is_large_string(kind) or types.is_large_binary(kind)
    if not (is_text or types.is_primitive(kind)) or types.is_boolean(kind):
        return value.to_pylist()
    missing = value.is_null().to_numpy(**_copying(arrow, value))
    present = value.drop_null()
    if isinstance(present, arrow.ChunkedArray):
        present = present.combine_chunks()
    if not len(present):
        return missing, b""
    if not is_text:
        return missing, _buffer(present, 1, present.offset, len(present), kind.bit_width // 8)
    offsets = memoryview(present.buffers()[1]).cast("q")
    starts = offsets[present.offset : present.offset + len(present) + 1]
    lengths = arrow.compute.binary_length(present).to_numpy()
    return missing, lengths, _buffer(present, 2, starts[0], starts[-1] - starts[0], 1)


def _copying(arrow: Any, value: Any) -> dict[str, bool]:
    return {} if isinstance(value, arrow.ChunkedArray) else {"zero_copy_only": False}


def _buffer(array: Any, number: int, start: int, length: int, width: int) -> bytes:
    buffer = array.buffers()[number]
    content = memoryview(buffer)[start * width : (start + length) * width] if buffer else b""
    return hashlib.sha256(content).digest()


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
