"""The index is made anew from all statuses, of any number, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Self

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import or_environment
from airflow_provider_rayworkflow.workflow.model import index_row
from airflow_provider_rayworkflow.workflow.model.index_row import (
    BY_ID,
    FEED,
    ORDERS,
    IndexRow,
    feed_key,
    index_keys,
)
from airflow_provider_rayworkflow.workflow.model.index_tree import Item
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.completions import known_versions
from airflow_provider_rayworkflow.workflow.storage.disk_sort import DiskSort
from airflow_provider_rayworkflow.workflow.storage.row_reader import row_of_name
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

#: So many workflows are held at a time.
ROWS_HELD = 10_000
_MOST_READ = 1000
# Versions have ten digits.
_MOST_BY_TIME = 5_000_000_000
_MOST_KNOWN = 9_000_000_000
# A watcher stores how far it has come only now and then.
_MORE_THAN_NOTED = 1000

_Replaced = dict[str, IndexRow | None]


class SortedRows:
    """All items of an index, of rows in any order, which are not held. A context manager: its end forgets them.

    :param most: how many rows are held.
    :ivar number: of the workflows of the last :meth:`items`.
    """

    def __init__(self, most: int = ROWS_HELD) -> None:
        self._orders = {prefix: DiskSort(most) for prefix in sorted(ORDERS)}
        self._open = ExitStack()
        self.number = 0

    def __enter__(self) -> Self:
        for order in self._orders.values():
            self._open.enter_context(order)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, row: IndexRow) -> None:
        """Take one more."""
        value = row.to_json()
        for key in index_keys(row):
            self._orders[_order_of(key)].add(key, value)

    def items(self, replaced: Mapping[str, IndexRow | None] = {}) -> Iterator[Item]:
        """All items by key.

        :param replaced: rows that take the place of those which were added, by segment; None for none.
        """
        self.number = 0
        for prefix, order in self._orders.items():
            kept = (item for item in order if item[1]["segment"] not in replaced)
            newer = [
                (key, row.to_json())
                for row in replaced.values()
                if row is not None
                for key in index_keys(row)
                if _order_of(key) == prefix
            ]
            for item in heapq.merge(kept, sorted(newer, key=_key_of), key=_key_of):
                self.number += prefix == BY_ID
                yield item


def _order_of(key: str) -> str:
    return key[: len(BY_ID)]


def rebuild(store: WorkflowStore, *, now: float, most: int = ROWS_HELD) -> int:
    """Make the index anew from all statuses; returns how many workflows it has.

    One listing, and a read for each workflow. What comes into the index meanwhile is read once more. Its feed is
    empty: watchers look at the ends of the last days instead. What is sorted meanwhile lies in temporary files, which take
    about as much as the index.

    :param now: seconds since the epoch.
    :param most: how many workflows are held at a time.
    :raises StorageError: when the storage does not answer, or there is no room for temporary files.
    :raises UntrustedDataError: when others, who sign with another key or none, make an index meanwhile.
    """
    after = _begun(store, now)
    while True:
        with SortedRows(most) as rows:
            for row in _all_rows(store, most):
                rows.add(row)
            replaced: _Replaced = {}
            while not store.index.rebuild(rows.items(replaced), after=after):
                before, after = after, _begun(store, now)
                try:
                    replaced |= _read_changed(store, before)
                except UntrustedDataError:
                    raise  # another one is at work, which would be in the way again and again
                except (CorruptedDataError, KeyNotFoundError):
                    break
            else:
                return rows.number


def _begun(store: WorkflowStore, now: float) -> int:
    """The version after which an index is made of what is read from now on.

    Change logs and watchers know versions of an index that was lost: none comes twice, whatever the clock says.
    """
    if last := store.index.last_version():
        return last
    known = [version for version in _known_versions(store) if version < _MOST_KNOWN]
    least = max(known, default=0) + _MORE_THAN_NOTED
    return store.index.begin(max(least, min(int(now), _MOST_BY_TIME)))


def _known_versions(store: WorkflowStore) -> Iterator[int]:
    for writer in store.changes.writers():
        with suppress(CorruptedDataError, KeyNotFoundError):
            yield store.changes.read(writer).version
    yield from known_versions(store)


def _read_changed(store: WorkflowStore, since: int) -> _Replaced:
    """Read again what came into the index after a version."""
    tree = store.index.load()
    if tree is None or tree.told_since > since:
        raise KeyNotFoundError(FEED)  # the feed does not tell
    changed = {
        value["segment"]
        for _, value in tree.scan(low=feed_key(since + 1, ""), high=index_row.behind(FEED))
    }
    return read_rows(store, changed)


def _all_rows(store: WorkflowStore, most: int) -> Iterator[IndexRow]:
    """Each workflow once, also where a listing has its documents apart from each other."""
    with DiskSort(most) as listed:
        before = ""
        for name in store.iter_names():
            if name.segment != before:
                listed.add(name.segment, None)
            before = name.segment
        segments = _without_repeats(segment for segment, _ in listed)
        while some := [*islice(segments, min(most, _MOST_READ))]:
            yield from filter(None, read_rows(store, some).values())


def _without_repeats(ordered: Iterator[str]) -> Iterator[str]:
    before = ""
    for one in ordered:
        if one != before:
            yield one
        before = one


def read_rows(store: WorkflowStore, segments: Collection[str]) -> dict[str, IndexRow | None]:
    """Workflows as they are stored, by segment; None for what is not stored. Several are read at once."""
    rows = map_at_once(store.bytes, partial(_read, store), list(segments))
    return dict(zip(segments, rows, strict=True))


def _read(store: WorkflowStore, segment: str) -> IndexRow | None:
    """A workflow as it is stored; of a damaged status what its name says."""
    try:
        return store.read_row(segment)
    except DataLoadError as exc:
        if exc.is_transient:
            raise
        if or_environment(store.signing):
            log.warning("The index leaves a workflow out: %s", exc)
            return None  # without its signature, the name says nothing
        log.warning("Of a workflow's status the index has only the name: %s", exc)
        key = store.latest_of_segment(segment)
        return row_of_name(key) if key else None


def _key_of(item: Item) -> str:
    return item[0]
