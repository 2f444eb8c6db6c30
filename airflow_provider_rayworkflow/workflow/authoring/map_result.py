"""The result of a map, as the tasks and callers have it that take it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any, TypeVar, overload

from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.model.stored_map import Key, StoredMap

T_co = TypeVar("T_co", covariant=True)

#: Loads the value of a stored result.
LoadResult = Callable[[Result], Any]

#: So many pieces are kept once they are loaded.
_KEPT_PIECES = 2


class MapResult(Sequence[T_co]):
    """The values that the items of a map gave, in the order of the items.

    They stay in the storage: each is loaded when it is asked for, and not kept. So a task goes through 100,000
    of them without holding them all; ``list(result)`` does hold them. Of items that failed, where
    ``max_failed`` allows that, it has no values: :attr:`failed` names them.

    It can be read in a task that takes it, and where ``get_output`` has given it. A task may return it, as it
    is and not inside something else; it is gone with the workflow that made it.
    """

    def __init__(self, stored: StoredMap, load: LoadResult) -> None:
        self._stored = stored
        self._load = load
        self._stamp = stored.stamp
        self._pieces: dict[int, MapResult[T_co]] = {}
        if stored.has_pieces:
            sizes = [entry.stamp.values for entry in stored.entries]
            self._offsets = [0, *accumulate(sizes)]
        else:
            self._present = [entry for entry in stored.entries if entry.result is not None]

    def __len__(self) -> int:
        return self._stamp.values

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        """One value, or a list of some."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not hasattr(index, "__index__"):
            raise TypeError(
                f"{self!r} has values by position, and {index!r:.100} is no whole number. By keys they are "
                "in dict(result.items())."
            )
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self!r} has no value {index}.")
        return self._loaded(self.result_at(position))

    def __iter__(self) -> Iterator[T_co]:
        return (self._loaded(result) for _, result in self.results())

    @property
    def keys(self) -> list[Key]:
        """The keys of the items that gave a value, in the order of the values."""
        return [key for key, _ in self.results()]

    def items(self) -> Iterator[tuple[Key, T_co]]:
        """The keys, each with its value: ``dict(result.items())``."""
        return ((key, self._loaded(result)) for key, result in self.results())

    @property
    def failed(self) -> dict[Key, str]:
        """The items that failed, by their keys, each with its error as text."""
        if not self._stamp.failed:
            return {}
        if not self._stored.has_pieces:
            entries = self._stored.entries
            return {entry.key: entry.failure for entry in entries if entry.result is None}
        with_failures = [
            number for number, entry in enumerate(self._stored.entries) if entry.stamp.failed
        ]
        return {
            key: text
            for number in with_failures
            for key, text in self._piece(number).failed.items()
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (MapResult, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        failed = f", {self._stamp.failed} failed" if self._stamp.failed else ""
        return f"<the result of a map: {len(self)} values{failed}>"

    def __reduce__(self) -> Any:
        return _restored, (self.to_bytes(), self._load)

    # ---- for the runtime

    @property
    def content(self) -> str:
        """What stands for all values, 16 hex digits."""
        return self._stamp.content

    @property
    def stored(self) -> StoredMap:
        """As it is stored."""
        return self._stored

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return self._stored.to_bytes()

    def results(self) -> Iterator[tuple[Key, Result]]:
        """The keys of the items that gave a value, each with where that is."""
        if self._stored.has_pieces:
            for number in range(len(self._stored.entries)):
                yield from self._piece(number).results()
            return
        for entry in self._present:
            if entry.result is not None:
                yield entry.key, entry.result

    def result_at(self, position: int) -> Result:
        """Where the value of a position is, which is there."""
        if self._stored.has_pieces:
            number = bisect_right(self._offsets, position) - 1
            return self._piece(number).result_at(position - self._offsets[number])
        return next(
            entry.result
            for entry in islice(self._present, position, None)
            if entry.result is not None
        )

    def _piece(self, number: int) -> MapResult[T_co]:
        if number not in self._pieces:
            while len(self._pieces) >= _KEPT_PIECES:
                self._pieces.pop(next(iter(self._pieces)), None)
            entry = self._stored.entries[number]
            self._pieces[number] = self._loaded_piece(entry.result)
        return self._pieces[number]

    def _loaded_piece(self, result: Result | None) -> Any:
        return (
            MapResult(StoredMap(entries=()), self._load) if result is None else self._load(result)
        )

    def _loaded(self, result: Result) -> T_co:
        value: T_co = self._load(result)
        return value


def _restored(stored: bytes, load: LoadResult) -> MapResult[Any]:
    return MapResult(StoredMap.from_bytes(stored), load)
