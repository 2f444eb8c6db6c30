"""The rows of the index as one look reads them: where it is replaced meanwhile, from its next version on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import understanding
from airflow_provider_rayworkflow.workflow.model.index_row import (
    FEED,
    IndexRow,
    behind,
    count_of,
    creation_key,
    feed_key,
    id_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.index import Index, Tree

Json = dict[str, Any]
T = TypeVar("T")


class LatestIndex:
    """Rows of the index.

    All but :attr:`version` raise :class:`DataLoadError` when a part of the index can't be read, with
    :class:`CorruptedDataError` for a damaged one.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._tree: Tree | None = None

    def load(self) -> bool:
        """Read the root; False without an index. Until then it has no rows."""
        self._tree = self._index.load()
        return self._tree is not None

    @property
    def version(self) -> int:
        """0 without an index."""
        return self._tree.version if self._tree is not None else 0

    @property
    def told_since(self) -> int:
        """As :attr:`.Tree.told_since`; 0 without an index."""
        return self._tree.told_since if self._tree is not None else 0

    def get(self, segment: str) -> IndexRow | None:
        """The row of a workflow; None for an unknown one."""
        value = self._ask(lambda tree: tree.get(id_key(segment)))
        return None if value is None else _row(value)

    def get_by_creation(self, row: IndexRow) -> IndexRow | None:
        """What the index has of a workflow that a change log knows better."""
        value = self._ask(lambda tree: tree.get(creation_key(row)))
        return None if value is None else _row(value)

    def scan(
        self, first: str, end: str, *, reverse: bool = False
    ) -> Iterator[tuple[str, IndexRow]]:
        """The rows from one key up to and without another, with their keys."""
        for key, value in self.items(first, end, reverse=reverse):
            yield key, _row(value)

    def items(self, first: str, end: str, *, reverse: bool = False) -> Iterator[tuple[str, Json]]:
        """The same with values as they are: those of the feed are no rows."""
        while self._tree is not None:
            try:
                for key, value in self._tree.scan(low=first, high=end, reverse=reverse):
                    yield key, value
                    if reverse:
                        end = key
                    else:
                        first = key + "\0"
                return
            except KeyNotFoundError:
                self._tree = self._index.newer_than(self._tree)

    def came_since(self, version: int) -> dict[str, list[tuple[int, Json]]]:
        """What the feed has since a version, by segment: each with the version in which it came."""
        if version >= self.version:
            return {}
        return came(self.items(feed_key(version + 1, ""), behind(FEED)))

    def count(self, first: str, end: str | None) -> Counter[tuple[WorkflowStatus, str]]:
        """How many rows there are from one key up to and without another, by status and manager.

        :param end: None for the end of the index.
        """
        found = self._ask(lambda tree: tree.count(low=first, high=end)) or {}
        with understanding(keys.INDEX, "counts of the index"):
            return Counter({count_of(name): number for name, number in found.items()})

    def _ask(self, question: Callable[[Tree], T]) -> T | None:
        while self._tree is not None:
            try:
                return question(self._tree)
            except KeyNotFoundError:
                self._tree = self._index.newer_than(self._tree)
        return None


def _row(value: Json) -> IndexRow:
    with understanding(keys.INDEX, "row of the index"):
        return IndexRow.from_json(value)


def came(feed: Iterable[tuple[str, Json]]) -> dict[str, list[tuple[int, Json]]]:
    """What a feed has, by segment: each with the version in which it came into the index."""
    found: dict[str, list[tuple[int, Json]]] = {}
    for key, value in feed:
        version = int(key.removeprefix(FEED).partition("/")[0])
        found.setdefault(str(value["segment"]), []).append((version, value))
    return found
