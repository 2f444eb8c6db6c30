"""What the index and the change logs know of a workflow, and under which keys the index has it. Pure.

One workflow stands in the index once for each order in which lists read it. Times in keys are 16 hex digits of
microseconds since the epoch, so that they sort; ids and names of DAGs stand there as :func:`.keys.quote_id`
makes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from airflow_provider_rayworkflow.workflow.format.documents import well_typed
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

Json = dict[str, Any]

#: Prefixes of the index's keys. The first one is the last of them all by key: so a count from some time on
#: has one end to look at. Behind the first four come a name of what they select by, where there is
#: one, a time, and the segment of the workflow's id.
BY_CREATION = "z/"
BY_STATUS = "s/"
BY_DAG = "d/"
BY_DAG_AND_STATUS = "x/"
#: Ended workflows: the status, the time of the end, the segment.
BY_END = "e/"
#: The time of the end, of active ones of the creation, and the segment.
BY_LAST = "a/"
#: The segment alone.
BY_ID = "i/"
#: The version of the index in which a change came in, and the segment.
FEED = "l/"

#: All of them.
ORDERS = (
    BY_CREATION,
    BY_STATUS,
    BY_DAG,
    BY_DAG_AND_STATUS,
    BY_END,
    BY_LAST,
    BY_ID,
    FEED,
)

# A larger origin than Airflow's ids make is not kept.
_MAX_ORIGIN_BYTES = 16_384
_MOST_TIME = 2**63
_ACTIVE = frozenset(status.value for status in WorkflowStatus if status.is_active)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRow:
    """One workflow as it stood with a write of its status.

    :ivar segment: of its id, as :func:`.keys.quote_id` makes it.
    :ivar status: as written; NONE: it was deleted.
    :ivar epoch: with ``number`` and ``manager_id`` the rest of the name of its status document.
    :ivar created_at: seconds since the epoch, as the others.
    :ivar changed_at: when it got its status; 0 where that is not known.
    :ivar tasks_done: as the status was written, with ``tasks_total``.
    :ivar origin: the task instance that started it, as its metadata has it; None for none.
    """

    segment: str
    workflow_id: str
    status: WorkflowStatus
    epoch: int = 0
    number: int = 0
    manager_id: str = ""
    created_at: float = 0.0
    changed_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    tasks_done: int = 0
    tasks_total: int = 0
    origin: Json | None = None

    @classmethod
    def of(cls, record: StatusRecord, segment: str) -> IndexRow:
        origin = record.user_metadata.get(ORIGIN_KEY)
        is_small = isinstance(origin, dict) and len(json.dumps(origin)) <= _MAX_ORIGIN_BYTES
        return cls(
            segment=segment,
            workflow_id=record.workflow_id,
            status=record.status,
            epoch=record.epoch,
            number=record.number,
            manager_id=record.manager_id,
            created_at=record.created_at,
            changed_at=record.changed_at,
            started_at=record.started_at,
            ended_at=record.ended_at,
            tasks_done=record.tasks_done,
            tasks_total=record.tasks_total,
            origin=origin if is_small else None,
        )

    @property
    def position(self) -> tuple[int, int]:
        """Rises with each status of a workflow, until it is deleted."""
        return self.epoch, self.number

    @property
    def last_at(self) -> float:
        """When it got its status, else its end, its start, or its creation."""
        return self.changed_at or self.ended_at or self.started_at or self.created_at

    @property
    def dag_id(self) -> str:
        """The DAG that started it, ``""`` for none."""
        dag_id = self.origin.get("dag_id") if self.origin else None
        return dag_id if isinstance(dag_id, str) else ""

    def to_json(self) -> Json:
        """Its fields by name, without those that have their default."""
        value: Json = {"segment": self.segment, "status": self.status.value}
        for name, default in _DEFAULTS.items():
            if (field := getattr(self, name)) != default:
                value[name] = field
        if self.workflow_id != self.segment:
            value["workflow_id"] = self.workflow_id
        return value

    @classmethod
    def from_json(cls, value: Json) -> IndexRow:
        fields = {"workflow_id": value["segment"]} | value
        return well_typed(cls(**fields | {"status": WorkflowStatus(value["status"])}))


_DEFAULTS: Json = {
    "epoch": 0,
    "number": 0,
    "manager_id": "",
    "created_at": 0.0,
    "changed_at": 0.0,
    "started_at": None,
    "ended_at": None,
    "tasks_done": 0,
    "tasks_total": 0,
    "origin": None,
}


def index_keys(row: IndexRow) -> list[str]:
    """All keys under which the index has a workflow, but for its place in the feed; none for a deleted one."""
    if row.status is WorkflowStatus.NONE:
        return []
    created = f"{time_key(row.created_at)}/{row.segment}"
    found = [id_key(row.segment), creation_key(row), by_status(row.status) + created]
    if row.dag_id:
        found += [by_dag(row.dag_id) + created, by_dag(row.dag_id, row.status) + created]
    ended = f"{time_key(row.last_at)}/{row.segment}"
    if row.status.is_active:
        return [*found, BY_LAST + created]
    return [*found, BY_LAST + ended, by_end(row.status) + ended]


def counted_as(value: Json) -> str:
    """What a row counts as, from :meth:`IndexRow.to_json`: its status, for an active one with its manager."""
    status = str(value["status"])
    return f"{status} {value.get('manager_id', '')}" if status in _ACTIVE else status


def count_of(name: str) -> tuple[WorkflowStatus, str]:
    """The status that a name of :func:`counted_as` has, and the manager, ``""`` for one that is not active.

    :raises ValueError: for what is no such name.
    """
    status, _, manager_id = name.partition(" ")
    return WorkflowStatus(status), manager_id


def id_key(segment: str) -> str:
    """Where a workflow stands by its id."""
    return BY_ID + segment


def creation_key(row: IndexRow) -> str:
    """Where a workflow stands by its creation."""
    return f"{BY_CREATION}{time_key(row.created_at)}/{row.segment}"


def by_status(status: WorkflowStatus) -> str:
    """What the keys of all workflows with a status begin with; the rest is sorted by creation."""
    return f"{BY_STATUS}{status.value}/"


def by_dag(dag_id: str, status: WorkflowStatus | None = None) -> str:
    """What the keys of a DAG's workflows begin with, of those with a status if one is given."""
    name = quote(dag_id, safe="", errors="surrogatepass")
    return f"{BY_DAG}{name}/" if status is None else f"{BY_DAG_AND_STATUS}{name}/{status.value}/"


def by_end(status: WorkflowStatus) -> str:
    """What the keys of all ended workflows with a status begin with; the rest is sorted by end."""
    return f"{BY_END}{status.value}/"


def feed_value(row: IndexRow, at: float) -> Json:
    """What the feed has of a change.

    :param at: when it came in, in seconds since the epoch.
    """
    return {
        "segment": row.segment,
        "status": row.status.value,
        "epoch": row.epoch,
        "number": row.number,
        "manager_id": row.manager_id,
        "at": at,
    }


def feed_key(version: int, segment: str) -> str:
    """Where a change of a workflow stands in the feed.

    :param version: of the index, in which it comes in.
    """
    return f"{FEED}{version:010d}/{segment}"


def is_newer(row: IndexRow, version: int, came: Iterable[tuple[int, Json]]) -> bool:
    """True if a change is certainly later than what the index has.

    :param version: of the index, when the change was not made yet.
    :param came: what came into the index of the workflow, with the version in which it did.
    """
    return all(
        at <= version
        or (
            value["manager_id"] == row.manager_id
            and (value["epoch"], value["number"]) <= row.position
        )
        for at, value in came
    )


def time_key(seconds: float) -> str:
    """A time as it stands in keys.

    :param seconds: since the epoch; what is before that, or beyond the digits, is the first or the last.
    """
    if math.isnan(seconds):
        return "0" * 16
    return f"{int(min(max(0.0, seconds * 1e6), _MOST_TIME)):016x}"


def behind(prefix: str) -> str:
    """The least text behind all that begins with a prefix, which ends with ``/``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
