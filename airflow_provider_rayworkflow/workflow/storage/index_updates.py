"""What change logs have is taken over into the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.model import index_row
from airflow_provider_rayworkflow.workflow.model.index_row import (
    DELETIONS,
    FEED,
    IndexRow,
    by_status,
    feed_key,
    feed_value,
    id_key,
    index_keys,
    time_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change
from airflow_provider_rayworkflow.workflow.storage.index import Tree
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import FEED_S, read_rows
from airflow_provider_rayworkflow.workflow.storage.keys import unquote_id
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

_DAY_S = 86_400.0
# A manager's changes are taken over sooner than that; then a deletion must not be forgotten.
_DELETION_S = _DAY_S
_MOST_FORGOTTEN = 1000


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
    rows |= read_rows(store, uncertain)
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
