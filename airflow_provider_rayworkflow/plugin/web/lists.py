"""The list of workflows: filtered, sorted, in pages, and only what the user may see."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin.web.access import Access
from airflow_provider_rayworkflow.plugin.web.lanes import each
from airflow_provider_rayworkflow.tries.identity import Origin
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.bounded_cache import BoundedCache
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey

log = get_logger(__name__)

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
class Facts:
    """What a row shows of a status document.

    :ivar problem: why it can't be read, for people; ``""`` if it can.
    """

    workflow_id: str
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    tasks_done: int = 0
    tasks_total: int = 0
    origin: Origin | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One workflow, with its honest status and who started it."""

    status: WorkflowStatus
    facts: Facts

    @property
    def workflow_id(self) -> str:
        return self.facts.workflow_id


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

    @classmethod
    def nothing(cls) -> Listed:
        """No workflow at all."""
        return cls(rows=(), total=0, pages=1, not_looked_at=0)


_KnownKey = tuple[SigningKeys | None, str, str]


def _size_of(key: _KnownKey, facts: Facts) -> int:
    origin = facts.origin
    of_origin = (
        (*astuple(origin.key)[:3], origin.run_after, origin.life, origin.inputs) if origin else ()
    )
    texts = (*key[1:], facts.workflow_id, *of_origin)
    return _ENTRY_BYTES + sum(sys.getsizeof(text) for text in texts)


# The objects of one entry, besides its texts.
_ENTRY_BYTES = 1000
#: How much of this process's memory is held by what rows show.
MAX_KNOWN_BYTES = 16 * 1024 * 1024

# Final statuses never change, and so are read once; by the storage and the key, which is unique.
_known: BoundedCache[_KnownKey, Facts] = BoundedCache(max_bytes=MAX_KNOWN_BYTES, size_of=_size_of)


def list_page(
    hook: RayWorkflowHook,
    access: Access,
    chosen: Filter,
    *,
    max_read: int = MAX_READ,
    known: BoundedCache[_KnownKey, Facts] = _known,
) -> Listed:
    """One page: what is active first, then the newest.

    One listing, and a read for each workflow that is not known yet.

    :param max_read: how many workflows it looks at, at most.
    :param known: what rows show of the final statuses that were read before.
    :raises StorageError: when the storage can't be read.
    """
    store, wanted = hook.store, chosen.text.lower()
    look = hook.statuses.look()
    found = [
        (status, key)
        for segment, key in store.list_segments().items()
        if (status := look.of(key.status, key.manager_id)) and chosen.status in ("", status)
        # The id of a long one is in its document only.
        if wanted in (keys.unquote_id(segment) or segment).lower()
    ]
    # Ids of task instances end with the time of their run.
    found.sort(key=lambda item: (item[0].is_active, item[1].segment), reverse=True)
    looked_at, more = found[:max_read], len(found) - max_read
    rows = [
        Row(status=status, facts=facts)
        for status, facts in _read(store, looked_at, known)
        if access.allows("GET", hook.ray_workflow_conn_id, facts.origin)
    ]
    rows.sort(key=lambda row: (not row.status.is_active, -row.facts.created_at, row.workflow_id))
    begin = (chosen.page - 1) * PAGE_SIZE
    return Listed(
        rows=rows[begin : begin + PAGE_SIZE],
        total=len(rows),
        pages=max(1, -(-len(rows) // PAGE_SIZE)),
        not_looked_at=max(0, more),
    )


def _read(
    store: WorkflowStore,
    found: Sequence[tuple[WorkflowStatus, StatusKey]],
    known: BoundedCache[_KnownKey, Facts],
) -> list[tuple[WorkflowStatus, Facts]]:
    """What rows show of these; several are read at once. What is deleted meanwhile has no row."""
    uri = store.bytes.uri
    shown = {key: known.get((store.signing, uri, key.key)) for _, key in found}
    unknown = [key for key, facts in shown.items() if facts is None]

    def read(key: StatusKey) -> Facts | None:
        facts = _read_facts(store, key)
        if facts is not None and not facts.problem and not key.status.is_active:
            known[store.signing, uri, key.key] = facts
        return facts

    shown.update(zip(unknown, each(read, unknown, at_once=_READ_AT_ONCE), strict=True))
    return [(status, facts) for status, key in found if (facts := shown[key]) is not None]


def _read_facts(store: WorkflowStore, key: StatusKey) -> Facts | None:
    """What a row shows of a workflow, None if it has just been deleted."""
    try:
        try:
            record: StatusRecord | None = store.read_status_at(key)
        except KeyNotFoundError:  # replaced since the listing
            workflow_id = keys.unquote_id(key.segment)
            record = store.read_status(workflow_id) if workflow_id else None
    except StorageError as exc:  # it hides no other workflow
        log.warning("The status of a workflow can't be read: %s", exc)
        is_damaged = isinstance(exc, CorruptedDataError)
        return Facts(
            workflow_id=keys.unquote_id(key.segment) or key.segment,
            problem="its status is damaged" if is_damaged else "its status can't be read",
        )
    if record is None:
        return None
    origin = Origin.from_metadata(record.user_metadata)
    return Facts(
        workflow_id=record.workflow_id,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        tasks_done=record.tasks_done,
        tasks_total=record.tasks_total,
        origin=origin,
    )
