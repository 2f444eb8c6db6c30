"""What change logs have is taken over into the index, and an index is made where one is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import or_environment
from airflow_provider_rayworkflow.workflow.model import index_row
from airflow_provider_rayworkflow.workflow.model.index_row import (
    DELETIONS,
    FEED,
    ORDERS,
    IndexRow,
    by_status,
    feed_key,
    feed_value,
    id_key,
    index_keys,
    time_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change
from airflow_provider_rayworkflow.workflow.storage.index import Tree
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey, unquote_id
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

Json = dict[str, Any]

_DAY_S = 86_400.0
#: How long the feed keeps a change. A watcher that was away for longer misses what came before.
FEED_S = 90 * _DAY_S
# A manager's changes are taken over sooner than that; then a deletion must not be forgotten.
_DELETION_S = _DAY_S
_MOST_FORGOTTEN = 1000
_MOST_READ = 1000
# Versions have ten digits.
_MOST_BY_TIME = 5_000_000_000


def take_over(
    store: WorkflowStore, changes: Sequence[Change], *, since: int, now: float
) -> dict[str, IndexRow] | None:
    """Let the index have what a change log says; where it is not certain, what the status document says.

    :param since: a version of the index when none of the changes was made yet.
    :param now: seconds since the epoch.
    :returns: what the index has of these workflows now, by segment; None where there is no index.
    :raises CorruptedDataError: when a part of the index is damaged.
    """
    tree = store.index.load()
    while tree is not None:
        try:
            rows, updates = _updates(store, tree, changes, since, now)
            if store.index.commit(tree, updates):
                return rows
        except KeyNotFoundError:
            tree = store.index.newer_than(tree)
        else:
            tree = store.index.load()  # another one was first
    return None


def take_over_active(store: WorkflowStore, manager_id: str, *, now: float) -> dict[str, IndexRow]:
    """Look at the workflows that a dead manager held, as far as the index knows: their ends may be missing.

    Returns what :func:`take_over` does.
    """
    tree = store.index.load()
    if tree is None:
        return {}
    held = [
        Change(seq=0, segment=value["segment"])
        for status in WorkflowStatus.non_terminating_status()
        for _, value in tree.scan(low=by_status(status), high=index_row.behind(by_status(status)))
        if value.get("manager_id") == manager_id
    ]
    return take_over(store, held, since=tree.version, now=now) or {} if held else {}


def rebuild(store: WorkflowStore, *, now: float) -> int:
    """Make the index anew from all statuses; returns how many workflows it has.

    One listing, and a read for each workflow. What comes into the index meanwhile is read once more. Watchers are
    given earlier ends once more, and know them.

    :param now: seconds since the epoch.
    """
    after = store.index.last_version()
    rows = {row.segment: row for row in _all_rows(store)}
    while True:
        # Change logs and watchers know versions of an index that was lost: none comes twice.
        version = after + 1 if after else min(int(now), _MOST_BY_TIME)
        items = sorted_items([*rows.values()], now, version)
        if store.index.rebuild(items, is_sorted=True, after=after, least=version):
            return len(rows)
        before, after = after, store.index.last_version()
        try:
            _read_changed(store, rows, before)
        except (CorruptedDataError, KeyNotFoundError):
            rows = {row.segment: row for row in _all_rows(store)}


def _read_changed(store: WorkflowStore, rows: dict[str, IndexRow], since: int) -> None:
    """Read again what came into the index after a version."""
    tree = store.index.load()
    if tree is None or tree.rebuilt > since:
        raise KeyNotFoundError(FEED)  # the feed does not tell
    changed = {
        value["segment"]
        for _, value in tree.scan(low=feed_key(since + 1, ""), high=index_row.behind(FEED))
    }
    found = _read_all(store, changed)
    for segment, row in found.items():
        rows.pop(segment, None)
        if row is not None:
            rows[segment] = row


def sorted_items(rows: Sequence[IndexRow], now: float, version: int) -> Iterator[tuple[str, Json]]:
    """All items of an index, one order after the other, so that the keys of one are held at a time."""
    keyed = {prefix: list[tuple[str, int]]() for prefix in sorted(ORDERS)}
    for prefix, keys in keyed.items():
        for number, row in enumerate(rows):
            own = [key for key in index_keys(row) if key.startswith(prefix)]
            if prefix == FEED and not row.status.is_active and row.last_at > now - FEED_S:
                own = [feed_key(version, row.segment)]
            keys += [(key, number) for key in own]
        keys.sort()
        for key, number in keys:
            row = rows[number]
            yield key, feed_value(row, now) if prefix == FEED else row.to_json()
        keys.clear()


def _all_rows(store: WorkflowStore) -> Iterator[IndexRow]:
    segments = list(store.list_segments())
    for start in range(0, len(segments), _MOST_READ):  # no more than these are held at once
        yield from filter(None, _read_all(store, segments[start : start + _MOST_READ]).values())


def _read_all(store: WorkflowStore, segments: Collection[str]) -> dict[str, IndexRow | None]:
    rows = map_at_once(store.bytes, lambda segment: _read(store, segment), list(segments))
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
        return _row_of_name(key) if key else None


def _row_of_name(key: StatusKey) -> IndexRow:
    return IndexRow(
        segment=key.segment,
        workflow_id=unquote_id(key.segment) or key.segment,
        status=key.status,
        epoch=key.epoch,
        number=key.number,
        manager_id=key.manager_id,
    )


def _updates(
    store: WorkflowStore, tree: Tree, changes: Sequence[Change], since: int, now: float
) -> tuple[dict[str, IndexRow], dict[str, Json | None]]:
    found = tree.get_all([id_key(change.segment) for change in changes])
    stored = {change.segment: _parsed(found.get(id_key(change.segment))) for change in changes}
    rows = {change.segment: change.row for change in changes}
    # An index that was made anew has forgotten what was deleted before.
    is_whole = tree.rebuilt <= since
    uncertain = [
        segment
        for segment, row in rows.items()
        if not (is_whole and _is_certain(row, stored[segment]))
    ]
    rows |= _read_all(store, uncertain)
    settled: dict[str, IndexRow] = {}
    updates: dict[str, Json | None] = dict.fromkeys(_forgotten(tree, now))
    for segment, row in rows.items():
        before = stored[segment]
        if row is None or row.status is WorkflowStatus.NONE:
            row = _gone(segment, row or before, now)
        settled[segment] = row
        updates |= _update(before, row)
        updates[feed_key(tree.version + 1, segment)] = feed_value(row, now)
    return settled, updates


def _gone(segment: str, known: IndexRow | None, now: float) -> IndexRow:
    """That nothing is stored of a workflow. Also of one that was never in the index: a log may have its end yet.

    :param known: its row, if one is known.
    """
    workflow_id = known.workflow_id if known else unquote_id(segment) or segment
    return IndexRow(
        segment=segment, workflow_id=workflow_id, status=WorkflowStatus.NONE, created_at=now
    )


def _update(before: IndexRow | None, row: IndexRow) -> dict[str, Json | None]:
    value = row.to_json()
    updates: dict[str, Json | None] = dict.fromkeys(index_keys(before) if before else ())
    updates |= dict.fromkeys(index_keys(row), value)
    return updates


def _is_certain(row: IndexRow | None, stored: IndexRow | None) -> bool:
    """True if a change is later than what the index has, whatever others have done meanwhile."""
    if row is None:
        return False
    if stored is None:
        return True
    # Another manager, or a deletion in between: its epochs may count from 1 again.
    return stored.manager_id == row.manager_id and stored.position <= row.position


def _forgotten(tree: Tree, now: float) -> Iterator[str]:
    """Keys of deletions, and of ends in the feed, that are too old to be of use."""
    for _, (key, _value) in zip(
        range(_MOST_FORGOTTEN),
        tree.scan(low=DELETIONS, high=DELETIONS + time_key(now - _DELETION_S)),
        strict=False,
    ):
        yield key
        yield id_key(key.rpartition("/")[2])
    for _, (key, value) in zip(range(_MOST_FORGOTTEN), tree.scan(low=FEED), strict=False):
        if not key.startswith(FEED) or value["at"] > now - FEED_S:
            return
        yield key


def _parsed(value: Json | None) -> IndexRow | None:
    return None if value is None else IndexRow.from_json(value)
