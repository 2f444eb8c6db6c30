"""Lists of workflows, by the manager of this Ray cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from airflow_provider_rayworkflow.workflow.checks import check_status_filter
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter

_PAGE_SIZE = 1000
StatusFilter = WorkflowStatus | str | set[WorkflowStatus | str] | None


def list_all(
    status_filter: StatusFilter = None,
    *,
    dag_id: str | None = None,
    since: float | datetime | None = None,
    until: float | datetime | None = None,
    id: str | None = None,
    limit: int | None = None,
) -> list[tuple[str, WorkflowStatus]]:
    """Ids and statuses of all workflows, or of those that a filter selects.

    With a status filter alone they are in the order of their ids, those that wait or waited for a slot last. With
    any other argument they are as :func:`iter_all` gives them.

    :param status_filter: only workflows with this status, or with one of these.
    :param dag_id: only those that task instances of this Airflow DAG have started.
    :param since: only those created from then on: a datetime, or seconds since the epoch.
    :param until: only those created before then.
    :param id: only those whose id has this text in it, in upper or lower case.
    :param limit: as many at most.
    :raises ValueError: for a status that does not exist, and for NONE; for a limit of less than 1.
    :raises TypeError: for anything but a status, a string, or a set of them, and for other values
        that can't be used.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise TypeError(f"limit must be None or a whole number, not {limit!r}.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}. None is no limit.")
    if limit is None and all(value is None for value in (dag_id, since, until, id)):
        from airflow_provider_rayworkflow.workflow.runtime.service import connect

        found: list[tuple[str, WorkflowStatus]] = connect.ask(
            "queries.list_all", check_status_filter(status_filter)
        )
        return found
    chosen = _filter(status_filter, dag_id, since, until, id)
    return list(islice(_pages(chosen, min(limit or _PAGE_SIZE, _PAGE_SIZE)), limit))


def iter_all(
    status_filter: StatusFilter = None,
    *,
    dag_id: str | None = None,
    since: float | datetime | None = None,
    until: float | datetime | None = None,
    id: str | None = None,
) -> Iterator[tuple[str, WorkflowStatus]]:
    """The same workflows one by one, those that were created last first. For storages with many.

    Neither this process nor the manager holds more than a page of a thousand. With ``id``, those whose ids begin
    with it as it is come first, in reverse order of their ids. Each is as its page was when it was read: a workflow
    that begins later may be missing, and one that ends meanwhile may come twice.

    The arguments and errors are those of :func:`list_all`.
    """
    return _pages(_filter(status_filter, dag_id, since, until, id), _PAGE_SIZE)


def _pages(chosen: ListFilter | None, size: int) -> Iterator[tuple[str, WorkflowStatus]]:
    if chosen is None:
        return
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    after = ""
    while True:
        rows, after = connect.ask("queries.list_page", chosen, size=size, after=after)
        yield from rows
        if not after:
            return


def _filter(
    status_filter: Any, dag_id: Any, since: Any, until: Any, part: Any
) -> ListFilter | None:
    """None for a filter that selects nothing: a set without a status."""
    for name, value in (("dag_id", dag_id), ("id", part)):
        if not isinstance(value, str | None):
            raise TypeError(f"{name} must be text or None, not {value!r}.")
    statuses = check_status_filter(status_filter)
    chosen = ListFilter(
        statuses=frozenset(statuses),
        dag_id=dag_id or "",
        since=_seconds("since", since),
        until=_seconds("until", until),
        text=part or "",
    )
    return chosen if statuses else None


def _seconds(name: str, value: Any) -> float | None:
    """Seconds since the epoch; a datetime without a zone is of this machine's."""
    if isinstance(value, datetime):
        return value.timestamp()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{name} must be a datetime or seconds since the epoch, not {value!r}.")
    return float(value)
