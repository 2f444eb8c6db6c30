"""Digests of lists, tuples and dicts of plain values, in about the time that pickling them takes.

Values are read column by column, not one by one: a list of floats is one array, a list of records with
the same keys an array for each key. All that decides how something is read is content: how long it
is, and what types it has. So a part that stands twice in a value counts as two equal ones, and the
order of a dict does not count, unless the caller wants it to.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import chain, compress, repeat
from operator import itemgetter
from typing import Any

#: Gives 32 bytes for what is not read in columns.
DigestOf = Callable[[Any], bytes]

#: So many values are read at once.
_AT_ONCE = 10_000

# A container in a container is read with it, or by itself. By itself, it is read once, however often
# it stands in the value; so whatever may be large is.
_MAX_LENGTH_WITHIN = 128
_MAX_DEPTH_WITHIN = 50

#: From so many dicts on, there is a column for each key.
_MANY_DICTS = 32

_NAN = float("nan")
_MAX_JOINED = 16 * 1024 * 1024
_SORTABLE = frozenset({str, int, bytes})


def has_sorted_keys(value: dict[Any, Any]) -> bool:
    """True if :func:`digest` takes the dict.

    Its keys are all texts, or all ints, or all bytes, or tuples that have such at each place.
    """
    return _are_sortable(value)


def sorted_items(value: Collection[Any]) -> list[Any] | None:
    """The items of a set in the order of their values; None where they have none."""
    return sorted(value) if _are_sortable(value) else None


def digest(
    value: list[Any] | tuple[Any, ...] | dict[Any, Any],
    digest_of: DigestOf,
    *,
    with_order: bool = False,
) -> bytes:
    """The digest of the content of a list or tuple, or of a dict with keys that can be sorted.

    :param digest_of: asked for parts that are neither plain values nor small containers of such.
    :param with_order: the order of dicts counts.
    """
    content = hashlib.sha256()
    in_order = list if with_order else sorted
    columns = _Columns(content.update, digest_of, in_order)
    content.update(b"%c%d" % (_CODES[type(value)], len(value)))
    if isinstance(value, dict):
        keys = in_order(value)
        columns.root(keys)
        columns.root(list(map(value.__getitem__, keys)))
    else:
        columns.root(value)
    return content.digest()


def _are_sortable(values: Collection[Any]) -> bool:
    kinds = set(map(type, values))
    if kinds == {tuple}:
        return len(set(map(len, values))) == 1 and all(
            map(_are_sortable, zip(*values, strict=True))
        )
    return not kinds or (len(kinds) == 1 and kinds <= _SORTABLE)


def _parts_of(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    if len(values) <= _AT_ONCE:
        return (values,) if values else ()
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _digest_of_numbers(values: Sequence[Any]) -> bytes | None:
    """The digest of the pickle of numbers, bools and None; None if other values are among them.

    That has the type of each, takes a third of the time that looking at their types takes, and is the
    same for equal ones: what depends on more than the value itself is noted in the pickler's memo.
    """
    if not _NUMBERS.issuperset(map(type, values[::_SAMPLE])):
        return None
    numbers = _Numbers(list(values) if isinstance(values, tuple) else values)
    if not numbers.pickle():
        return None
    if numbers.has_nan:  # NaNs may differ in bits that mean nothing
        numbers = _Numbers([_NAN if value != value else value for value in values])
        numbers.pickle()
    return numbers.content.digest()


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        raise TypeError("an object of a class")


class _Numbers:
    """A list of numbers, and the file that it is pickled to: hashed as it comes, in parts of 64 KiB.

    Its pickle is a head, then for each thousand a mark, these numbers and an end. Where all of them
    are floats, or all are ints of one size, the letters that say so are equally far apart, and
    nothing has to be looked at one by one.

    :ivar has_nan: there is a NaN among them.
    """

    def __init__(self, numbers: Sequence[Any]) -> None:
        self.content = hashlib.sha256()
        self.has_nan = False
        self._numbers = numbers
        self._searched = 0  # so many of them have been looked at
        self._skip = len(b"]\x94(")  # so many bytes come before the next one
        self._head = len(b"\x80\x04") + _FRAME

    def pickle(self) -> bool:
        """Do so; False where an object is among them that may depend on more than its value."""
        pickler = _PlainPickler(self, protocol=4)
        try:
            pickler.dump(self._numbers)
        except Exception:  # it has an object that can't be pickled, or that is not even tried
            return False
        return len(pickler.memo.copy()) == 1  # the list itself

    def write(self, part: bytes) -> None:
        """Called by the pickler, with one frame."""
        self.content.update(memoryview(part)[self._head :])
        at, self._head = self._head + self._skip, _FRAME
        while at < len(part) and self._searched < len(self._numbers):
            at = self._search(part, at)
        self._skip = at - len(part)

    def _search(self, part: bytes, at: int) -> int:
        """Look at the numbers of one thousand in this part; returns where the next ones begin."""
        left = min(_LISTED - self._searched % _LISTED, len(self._numbers) - self._searched)
        letter = part[at : at + 1]
        size = _SIZES.get(letter, len(part))
        count = min(left, (len(part) - at) // size)
        end = at + count * size
        if not count or part[at:end:size] != letter * count:
            count = left
            odd = self._numbers[self._searched : self._searched + count]
            self.has_nan = self.has_nan or any(number != number for number in odd)
            end = at + _size_of(odd)
        elif letter == b"G" and not self.has_nan:
            exponents = part[at + 1 : end : size]
            if b"\x7f" in exponents or b"\xff" in exponents:  # or it is large, or infinite
                alike = self._numbers[self._searched : self._searched + count]
                self.has_nan = any(number != number for number in alike)
        self._searched += count
        return end if self._searched % _LISTED else end + len(b"e(")


def _size_of(numbers: Sequence[Any]) -> int:
    """How many bytes numbers have in a pickle."""
    return len(pickle.dumps((*_FOUR, *numbers), protocol=2)) - len(pickle.dumps(_FOUR, protocol=2))


_NUMBERS = frozenset({int, float, bool, type(None)})
_MANY_NUMBERS = 500
_SAMPLE = 997
_FRAME = 9  # bytes at the begin of each frame
_LISTED = 1_000
_SIZES = {b"G": 9, b"J": 5, b"M": 3, b"K": 2}  # of a float, and of ints
_FOUR = (None,) * 4  # shorter tuples are pickled in another way


class _Columns:
    """Reads values into a digest.

    :param update: takes the next bytes.
    :param in_order: gives the keys of a dict as they are read.
    """

    def __init__(
        self,
        update: Callable[[Any], None],
        digest_of: DigestOf,
        in_order: Callable[[Iterable[Any]], list[Any]],
    ) -> None:
        self._update = update
        self._digest_of = digest_of
        self._in_order = in_order
        self._room = 0  # for so many values of inner containers, to be read with the outer ones

    def root(self, values: Sequence[Any]) -> None:
        if self._are_numbers(values):
            return
        for part in _parts_of(values):
            self._room = max(_AT_ONCE, _MAX_LENGTH_WITHIN * len(part))
            self._read(part, 0)

    def _read(self, values: Sequence[Any], depth: int) -> None:
        for part in _parts_of(values):
            if self._are_numbers(part):
                continue
            kinds = set(map(type, part))
            if len(kinds) == 1:
                code = _CODES.get(kinds.pop(), _OTHER)
                self._update(b"%c" % code)
                _READERS[code](self, part, depth)
                continue
            codes = bytes(map(_CODES.get, map(type, part), repeat(_OTHER)))
            self._update(b"*")
            self._update(codes)
            for code in sorted(set(codes)):
                _READERS[code](self, list(compress(part, codes.translate(_ONLY[code]))), depth)

    def _are_numbers(self, values: Sequence[Any]) -> bool:
        """Read the values if they are many numbers, and nothing else."""
        numbers = _digest_of_numbers(values) if len(values) >= _MANY_NUMBERS else None
        if numbers is None:
            return False
        self._update(b"#")
        self._update(numbers)
        return True

    # ---- one kind of values

    def _nones(self, values: Sequence[None], depth: int) -> None:
        """Nothing to read: their number is known."""

    def _bools(self, values: Sequence[bool], depth: int) -> None:
        self._update(bytes(values))

    def _ints(self, values: Sequence[int], depth: int) -> None:
        try:
            packed = array("q", values)
        except OverflowError:
            self._update(b"x")
            self._texts([f"{value:x}" for value in values], depth)
        else:
            self._update(b"q")
            self._update(packed)

    def _floats(self, values: Sequence[float], depth: int) -> None:
        if math.isnan(sum(values, 0.0)):  # NaNs may differ in bits that mean nothing
            values = [value if value == value else _NAN for value in values]
        self._update(array("d", values))

    def _texts(self, values: Sequence[str], depth: int) -> None:
        if sum(self._lengths(values)) > _MAX_JOINED:
            for value in values:
                self._update(value.encode(errors="surrogatepass"))
        else:
            self._update("".join(values).encode(errors="surrogatepass"))

    def _bytes(self, values: Sequence[bytes], depth: int) -> None:
        if sum(self._lengths(values)) > _MAX_JOINED:
            for value in values:
                self._update(value)
        else:
            self._update(b"".join(values))

    def _made_of_arguments(self, values: Sequence[Any], depth: int) -> None:
        """Dates, decimal numbers and such, by what they would be made of again."""
        self._rows([value.__reduce_ex__(_REDUCE_PROTOCOL)[1] for value in values], depth)

    def _others(self, values: Sequence[Any], depth: int) -> None:
        self._update(b"".join(map(self._digest_of, values)))

    # ---- containers

    def _rows(self, rows: Sequence[Sequence[Any]], depth: int) -> None:
        """Lists, or tuples."""
        if rows := self._those_within(rows, depth):
            self._read(list(chain.from_iterable(rows)), depth + 1)

    def _dicts(self, dicts: Sequence[dict[Any, Any]], depth: int) -> None:
        if not _are_sortable(list(chain.from_iterable(dicts))):
            self._update(b"?")
            self._others(dicts, depth)
            return
        self._update(b"k")
        if not (dicts := self._those_within(dicts, depth)):
            return
        names = {tuple(self._in_order(keys)) for keys in set(map(tuple, dicts))}
        if len(names) == 1 and len(dicts) >= _MANY_DICTS:
            (keys,) = names
            self._update(b"=")
            self._read(keys, depth + 1)
            for key in keys:
                self._read(list(map(itemgetter(key), dicts)), depth + 1)
            return
        orders = list(map(self._in_order, dicts))
        self._read(list(chain.from_iterable(orders)), depth + 1)
        values = [of[key] for of, keys in zip(dicts, orders, strict=True) for key in keys]
        self._read(values, depth + 1)

    def _those_within(self, containers: Sequence[Any], depth: int) -> Sequence[Any]:
        """The containers that are read with the value that they stand in; the others are read here."""
        lengths = self._lengths(containers)
        total = sum(lengths)
        if max(lengths) > _MAX_LENGTH_WITHIN:
            self._others([one for one in containers if len(one) > _MAX_LENGTH_WITHIN], depth)
            containers = [one for one in containers if len(one) <= _MAX_LENGTH_WITHIN]
            total = sum(map(len, containers))
        if total > self._room or depth == _MAX_DEPTH_WITHIN:
            self._others(containers, depth)
            return ()
        self._room -= total
        return containers

    def _lengths(self, values: Sequence[Any]) -> list[int]:
        """Read the lengths of values."""
        lengths = list(map(len, values))
        self._update(array("q", lengths))
        return lengths


_OTHER = ord("o")
_CODES: dict[type, int] = {
    type(None): ord("n"),
    bool: ord("b"),
    int: ord("i"),
    float: ord("f"),
    str: ord("s"),
    bytes: ord("y"),
    list: ord("l"),
    tuple: ord("t"),
    dict: ord("d"),
}
#: Types whose values are told by arguments alone, and do not change.
_MADE_OF_ARGUMENTS = (date, datetime, time, timedelta, Decimal, Fraction)
_CODES |= {kind: ord("A") + number for number, kind in enumerate(_MADE_OF_ARGUMENTS)}
_REDUCE_PROTOCOL = 5

_READERS: dict[int, Callable[[_Columns, Any, int], None]] = {
    _CODES[type(None)]: _Columns._nones,
    _CODES[bool]: _Columns._bools,
    _CODES[int]: _Columns._ints,
    _CODES[float]: _Columns._floats,
    _CODES[str]: _Columns._texts,
    _CODES[bytes]: _Columns._bytes,
    _CODES[list]: _Columns._rows,
    _CODES[tuple]: _Columns._rows,
    _CODES[dict]: _Columns._dicts,
    _OTHER: _Columns._others,
    **{_CODES[kind]: _Columns._made_of_arguments for kind in _MADE_OF_ARGUMENTS},
}
#: For each code, a table that leaves that code 1, and all others 0.
_ONLY = {code: bytes(int(other == code) for other in range(256)) for code in _READERS}
