"""Keys of the items of maps: which can be used, and what stands for them in names and results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date, time, timedelta
from enum import Enum
from numbers import Integral, Number
from pathlib import PurePath
from typing import Any
from uuid import UUID

from airflow_provider_rayworkflow.workflow.model.stored_map import Key

_MAX_LENGTH = 100
_MAX_STORED_LENGTH = 1_000

#: In the text of an object without one of its own.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}>")

#: Their texts are the same in every process.
_STABLE = (str, bytes, type(None), Number, date, time, timedelta, Enum, UUID, PurePath)


def text(key: Any) -> str:
    """A key as it stands in a task's id."""
    shown = str(key)
    if not shown.isprintable() or not shown:
        shown = repr(shown)
    if len(shown) <= _MAX_LENGTH:
        return shown
    digest = hashlib.sha256(shown.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{shown[:_MAX_LENGTH]}…{digest}"


def stored_key(key: Any) -> Key:
    """A key as it stands in a map's result: a number as one of Python, what is no text as text."""
    if key is None or type(key) is bool or (type(key) is str and len(key) <= _MAX_STORED_LENGTH):
        return key
    if isinstance(key, Integral) and not isinstance(key, Enum):
        return int(key)
    return float(key) if isinstance(key, float) else text(key)


def check_keys(keys: Sequence[Any], name: str) -> None:
    """Return if items can be told apart by these keys, in this process and in others.

    :param name: of the map, for errors.
    :raises TypeError: for a key whose text may be another one in another process.
    :raises ValueError: for the same key twice.
    """
    seen: dict[str, int] = {}
    for position, key in enumerate(keys):
        _check_key(key, name)
        shown = text(key)
        if (before := seen.setdefault(shown, position)) != position:
            raise ValueError(
                f"{name} has two items with the key {shown!r}: numbers {before} and {position}. Each needs a "
                "key of its own: give key= a function that tells them apart, or leave it away."
            )


def _check_key(key: Any, name: str) -> None:
    if not _is_stable(key):
        raise TypeError(
            f"{name} has an item with the key {key!r:.100}, a {type(key).__name__}. A key is a text, a number, "
            "a date or time, an Enum, a UUID, a path, or a tuple of these, so that the item is found again: "
            "give key= a function that returns one, or such keys in the dict."
        )


def _is_stable(key: Any) -> bool:
    if isinstance(key, tuple):
        # Its text has the value of a member of an Enum, and the zone of a time.
        return all(map(_is_stable, key)) and _ADDRESS.search(str(key)) is None
    is_of_numpy = hasattr(key, "dtype") and getattr(key, "ndim", 1) == 0  # its bool and datetime64
    return isinstance(key, _STABLE) or is_of_numpy
