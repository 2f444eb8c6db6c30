"""What the user wants to see in the list of workflows, as its URL says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from urllib.parse import urlencode

from fastapi import Depends, HTTPException, Query

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter, Sort


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A filter, an order and a page of the list, in the words of its URL.

    :ivar status: names of statuses, none for any.
    :ivar since: the first time of creation, in ISO 8601; of UTC, where it does not say. ``""`` for any.
    :ivar until: the time before which they were created, as ``since``.
    :ivar text: a part of the id, in any case.
    :ivar order: ``"desc"`` or ``"asc"``.
    :ivar after: the begin of the page, ``""`` for the first one.
    """

    status: Sequence[str] = ()
    dag_id: str = ""
    since: str = ""
    until: str = ""
    text: str = ""
    sort: Sort = "created"
    order: str = "desc"
    after: str = ""

    @property
    def is_descending(self) -> bool:
        return self.order != "asc"

    @property
    def filter(self) -> ListFilter:
        """The filter.

        :raises HTTPException: 422 for a time that is none.
        """
        return ListFilter(
            statuses=frozenset(WorkflowStatus(name) for name in self.status),
            dag_id=self.dag_id,
            since=_time("since", self.since),
            until=_time("until", self.until),
            text=self.text,
        )

    def with_(self, **changes: Any) -> Self:
        """The same with another filter, order or page; a page belongs to its filter and order."""
        return replace(self, **{"after": ""} | changes)

    def sorted_by(self, sort: Sort) -> Self:
        """What a click on a column shows: that order, or the other way round."""
        is_turned = sort == self.sort and self.is_descending
        return self.with_(sort=sort, order="asc" if is_turned else "desc")

    def query(self, conn_id: str, **more: str) -> str:
        """What stands in the URL behind the ``?``."""
        named = {
            "dag_id": self.dag_id,
            "since": self.since,
            "until": self.until,
            "text": self.text,
            "sort": "" if self.sort == "created" else self.sort,
            "order": "" if self.is_descending else "asc",
            "after": self.after,
            **more,
        }
        pairs = [("conn_id", conn_id), *(("status", name) for name in self.status)]
        return urlencode(pairs + [(name, value) for name, value in named.items() if value])


def known_statuses(names: Sequence[str]) -> list[str]:
    """Those that a workflow can have."""
    return [name for name in STATUSES if name in names]


def utc_text(seconds: float) -> str:
    """A time for :class:`Chosen`.

    :param seconds: since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise HTTPException(
            422, f"{name} is no time. Write it as 2026-11-24T13:30, in UTC."
        ) from exc


async def _chosen(
    status: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006 - FastAPI copies it
    dag_id: Annotated[str, Query(max_length=250)] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    text: Annotated[str, Query(max_length=500)] = "",
    sort: Annotated[Sort, Query()] = "created",
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    after: Annotated[str, Query(max_length=2000)] = "",
) -> Chosen:
    """As a coroutine: FastAPI makes no other in one of the threads that all routes share."""
    chosen = Chosen(
        status=known_statuses(status),
        dag_id=dag_id.strip(),
        since=since.strip(),
        until=until.strip(),
        text=text.strip(),
        sort=sort,
        order=order,
        after=after,
    )
    chosen.filter  # noqa: B018 - what is no time is told before the storage is asked
    return chosen


ChosenDep = Annotated[Chosen, Depends(_chosen)]

STATUSES = [status.value for status in WorkflowStatus if status is not WorkflowStatus.NONE]
