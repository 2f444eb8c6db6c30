"""What change logs have is taken over into the index."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.model.index_row import (
    FEED,
    IndexRow,
    behind,
    by_status,
    feed_key,
    feed_value,
    id_key,
    index_keys,
    is_newer,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change
from airflow_provider_rayworkflow.workflow.storage.index import Tree
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import read_rows
from airflow_provider_rayworkflow.workflow.storage.keys import unquote_id
from airflow_provider_rayworkflow.workflow.storage.latest_index import came
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

# How long the feed keeps a change at least. What it has forgotten costs its readers more, and nothing else:
# so a wrong clock does no harm.
_FEED_S = 90 * 86_400.0
#: So many versions of the index are kept in its feed, whatever a clock says.
VERSIONS_KEPT = 1000
_MOST_FORGOTTEN = 1000


def take_over(
    store: WorkflowStore,
    changes: Sequence[Change],
    *,
    since: int,
    now: float,
    versions_kept: int = VERSIONS_KEPT,
) -> dict[str, IndexRow] | None:
    """Let the index have what a change log says; where it is not certain, what the status document says.

    :param since: a version of the index when none of the changes was made yet.
    :param now: seconds since the epoch; decides what the feed forgets, and nothing else.
    :param versions_kept: of the index in its feed, at least.
    :returns: what the index has of these workflows now, by segment; None where there is no index.
    :raises CorruptedDataError: when a part of the index is damaged.
    """
    tree = store.index.load()
    while tree is not None:
        try:
            rows, updates = _updates(store, tree, changes, since, now)
            old, forgets = _forgotten(tree, now, tree.version - versions_kept)
            if store.index.commit(tree, updates | old, forgets=forgets):
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
        for _, value in tree.scan(low=by_status(status), high=behind(by_status(status)))
        if value.get("manager_id") == manager_id
    ]
    return take_over(store, held, since=tree.version, now=now) or {} if held else {}


def _updates(
    store: WorkflowStore, tree: Tree, changes: Sequence[Change], since: int, now: float
) -> tuple[dict[str, IndexRow], dict[str, Json | None]]:
    found = tree.get_all([id_key(change.segment) for change in changes])
    rows = {change.segment: change.row for change in changes}
    later = came(tree.scan(low=feed_key(since + 1, ""), high=behind(FEED)))
    is_told = tree.told_since <= since <= tree.version
    uncertain = [
        segment
        for segment, row in rows.items()
        if row is None or not (is_told and is_newer(row, since, later.get(segment, ())))
    ]
    rows |= read_rows(store, uncertain)
    settled: dict[str, IndexRow] = {}
    updates: dict[str, Json | None] = {}
    for segment, row in rows.items():
        before = _parsed(found.get(id_key(segment)))
        if row is None or row.status is WorkflowStatus.NONE:
            row = _gone(segment, row or before)
        settled[segment] = row
        updates |= _update(before, row)
        updates[feed_key(tree.version + 1, segment)] = feed_value(row, now)
    return settled, updates


def _gone(segment: str, known: IndexRow | None) -> IndexRow:
    """That nothing is stored of a workflow.

    :param known: its row, if one is known.
    """
    workflow_id = known.workflow_id if known else unquote_id(segment) or segment
    return IndexRow(segment=segment, workflow_id=workflow_id, status=WorkflowStatus.NONE)


def _update(before: IndexRow | None, row: IndexRow) -> dict[str, Json | None]:
    value = row.to_json()
    updates: dict[str, Json | None] = dict.fromkeys(index_keys(before) if before else ())
    updates |= dict.fromkeys(index_keys(row), value)
    return updates


def _forgotten(tree: Tree, now: float, before: int) -> tuple[dict[str, None], int]:
    """Keys of the feed that are old enough to be forgotten, and the last version of them.

    :param before: a version; later ones are kept.
    """
    old: dict[str, None] = {}
    last = 0
    for key, value in islice(tree.scan(low=FEED, high=behind(FEED)), _MOST_FORGOTTEN):
        version = int(key.removeprefix(FEED).partition("/")[0])
        if version > before or value["at"] > now - _FEED_S:
            break
        old[key], last = None, version
    return old, last


def _parsed(value: Json | None) -> IndexRow | None:
    return None if value is None else IndexRow.from_json(value)
