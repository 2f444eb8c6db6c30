"""What an object consists of: what pickle would make it of again."""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from cloudpickle.cloudpickle import CloudPickler


def without_caches(cls: type, state: Any) -> Any:
    """An object's state without what a ``cached_property`` has left when it was merely read."""
    if type(state) is not dict or not (cached := _cached_names(cls)):
        return state
    return {name: part for name, part in state.items() if name not in cached}


@functools.lru_cache(maxsize=1_000)
def _cached_names(cls: type) -> frozenset[str]:
    return frozenset(
        name
        for base in cls.__mro__
        for name, member in vars(base).items()
        if isinstance(member, functools.cached_property)
    )


def reduced_of(value: Any) -> Any:
    """What a pickler would make the object of again: a name, or a tuple as ``__reduce__`` gives it.

    :raises TypeError: for what can't be pickled.
    """
    kind = type(value)
    reducer = copyreg.dispatch_table.get(kind) or CloudPickler.dispatch_table.get(kind)
    reduced = reducer(value) if reducer else value.__reduce_ex__(5)
    if not isinstance(reduced, (str, tuple)):
        raise TypeError(f"{type(value).__name__} gives no parts.")
    return reduced
