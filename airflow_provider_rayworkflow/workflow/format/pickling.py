"""Small records that travel between processes by the thousand."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def pickled_by_fields(cls: type[T]) -> type[T]:
    """Pickle a frozen dataclass with slots by its values alone.

    The way of ``dataclasses`` looks its fields up anew for each record, which takes longer than all
    the rest of a short task.
    """
    names: tuple[str, ...] = cls.__slots__  # type: ignore[attr-defined]
    values_of = attrgetter(*names)

    def reduce(self: Any) -> Any:
        values = values_of(self)
        return _restore, (cls, values if len(names) > 1 else (values,))

    cls.__reduce__ = reduce  # type: ignore[method-assign]
    return cls


_set = object.__setattr__


def _restore(cls: type[T], values: tuple[Any, ...]) -> T:
    record = object.__new__(cls)
    for name, value in zip(cls.__slots__, values, strict=True):  # type: ignore[attr-defined]
        _set(record, name, value)
    return record
