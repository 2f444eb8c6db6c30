"""The list of workflows: filtered, sorted, in pages, and only what the user may see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.identity import Origin
from airflow_provider_rayworkflow.plugin.web.access import Access
from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError, StorageError
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey
from airflow_provider_rayworkflow.workflow.storage.workflows import HonestStatuses, list_workflows

PAGE_SIZE = 50
#: Of so many workflows at most the status documents are read for one page.
MAX_READ = 2000
_READ_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """What the user wants to see.

    :ivar status: ``""`` for any.
    :ivar text: a part of the id, in any case.
    """

    status: str
    text: str
    page: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One workflow, with its honest status and who started it."""

    workflow_id: str
    status: WorkflowStatus
    record: StatusRecord
    origin: Origin | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One page of the list.

    :ivar total: how many the filter leaves, of those that were looked at.
    :ivar not_looked_at: how many more there are.
    """

    rows: Sequence[Row]
    total: int
    pages: int
    not_looked_at: int


# Final statuses never change, and so are read once; by the storage and the key, which is unique.
_known: dict[tuple[str, str], StatusRecord] = {}
_MAX_KNOWN = 20_000


def list_page(hook: RayWorkflowHook, access: Access, chosen: Filter) -> Listed:
    """One page: what is active first, then the newest.

    One listing, and a read for each workflow that is not known yet.

    :raises StorageError: when the storage can't be read.
    """
    store = hook.store
    found = [
        item
        for item in list_workflows(store, HonestStatuses(store, now=time.time()))
        if chosen.status in ("", item[1]) and chosen.text.lower() in item[0].lower()
    ]
    # Ids of task instances end with the time of their run.
    found.sort(key=lambda item: (item[1].is_active, item[0]), reverse=True)
    looked_at, more = found[:MAX_READ], len(found) - MAX_READ
    rows = [row for row in _read(store, looked_at) if _may_see(row, hook, access)]
    rows.sort(key=lambda row: (not row.status.is_active, -row.record.created_at, row.workflow_id))
    begin = (chosen.page - 1) * PAGE_SIZE
    return Listed(
        rows=rows[begin : begin + PAGE_SIZE],
        total=len(rows),
        pages=max(1, -(-len(rows) // PAGE_SIZE)),
        not_looked_at=max(0, more),
    )


def _may_see(row: Row, hook: RayWorkflowHook, access: Access) -> bool:
    return access.allows("GET", hook.ray_workflow_conn_id, row.origin)


def _read(
    store: WorkflowStore, found: Sequence[tuple[str, WorkflowStatus, StatusKey]]
) -> list[Row]:
    def read(item: tuple[str, WorkflowStatus, StatusKey]) -> Row | None:
        workflow_id, status, key = item
        known = _known.get((store.bytes.uri, key.key))
        record: StatusRecord | None
        try:
            record = known or store.read_status_at(key)
        except KeyNotFoundError:  # replaced since the listing
            record = store.read_status(workflow_id)
        except StorageError:  # a document that is damaged hides no other workflow
            return None
        if record is None:
            return None
        if known is None and not record.status.is_active:
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            _known[store.bytes.uri, key.key] = record
        origin = Origin.from_metadata(record.user_metadata)
        return Row(workflow_id=workflow_id, status=status, record=record, origin=origin)

    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        return [row for row in threads.map(read, found) if row is not None]
