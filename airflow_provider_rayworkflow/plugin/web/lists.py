"""The list of workflows: filtered, sorted, in pages, and only what the user may see."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin.web.access import Access
from airflow_provider_rayworkflow.plugin.web.chosen import Chosen, utc_text
from airflow_provider_rayworkflow.plugin.web.lanes import each, in_turn
from airflow_provider_rayworkflow.plugin.web.seals import seal, unseal
from airflow_provider_rayworkflow.tries.identity import Origin
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.listing import (
    ListFilter,
    ListPage,
    UnknownPageError,
    count_last_day,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview

PAGE_SIZE = 50
_READ_AT_ONCE = 16
_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One workflow, with its honest status and the task instance that started it."""

    listed: Listed
    origin: Origin | None

    @property
    def workflow_id(self) -> str:
        return self.listed.workflow_id

    @property
    def problem(self) -> str:
        """Why no more is known than its name, for people; ``""`` if more is known."""
        return "" if self.listed.has_times else "its status is damaged, or can't be read"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownPage:
    """One page of the list.

    :ivar next: begins the next page, ``""`` for the last one.
    :ivar is_cut: not all workflows were looked at.
    :ivar is_lost: what was asked for was the begin of no page: this is the first one.
    """

    rows: Sequence[Row] = ()
    next: str = ""
    is_cut: bool = False
    is_lost: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many workflows were created in the last day.

    :ivar since: when the day began, for :class:`Chosen`.
    :ivar numbers: by status; empty where they can't or must not be told.
    """

    since: str
    numbers: Mapping[WorkflowStatus, int]


def list_page(hook: RayWorkflowHook, access: Access, chosen: Chosen) -> ShownPage:
    """One page. With an index it costs what it shows; else status documents are read.

    :raises StorageError: when the storage can't be read.
    """
    overview, conn_id = open_overview(hook), hook.ray_workflow_conn_id

    def is_shown(listed: Listed) -> bool:
        return access.allows("GET", conn_id, origin_of(listed))

    def read(after: str) -> ListPage:
        return read_in_turn(
            overview,
            chosen.filter,
            size=PAGE_SIZE,
            after=after,
            sort=chosen.sort,
            descending=chosen.is_descending,
            is_shown=is_shown,
        )

    is_lost = False
    try:
        page = read(unseal(chosen.after))
    except UnknownPageError:  # of another list, or sealed with another key
        page, is_lost = read(""), True
    return ShownPage(
        rows=[Row(listed=listed, origin=origin_of(listed)) for listed in page.rows],
        next=seal(page.next),
        is_cut=page.is_cut,
        is_lost=is_lost,
    )


def visible_part(page: ShownPage | None, *, may_see_connection: bool) -> ShownPage | None:
    """What the user may know of a page.

    A user without rights on the connection learns no more than of an unknown connection, unless rows are shown.

    :param page: None when the connection can't be read.
    """
    if may_see_connection or (page is not None and page.rows):
        return page
    return ShownPage()


def count_page(
    hook: RayWorkflowHook, access: Access, *, clock: Callable[[], float] = time.time
) -> Counts:
    """The counts above the list, which would tell a user with fewer rights what is hidden.

    :param clock: seconds since the epoch.
    :raises StorageError: when the storage can't be read.
    """
    now = float(int(clock()))
    may_know = access.allows_all(hook.ray_workflow_conn_id)
    numbers = count_last_day(open_overview(hook), now) if may_know else {}
    return Counts(since=utc_text(now - _DAY_S), numbers=numbers)


def read_in_turn(overview: Overview, chosen: ListFilter, **page: Any) -> ListPage:
    """:func:`read_page`; without an index, which takes memory and time, one after the other."""
    read = functools.partial(read_page, overview, chosen, **page)
    return read() if overview.load() else in_turn(read)


def open_overview(hook: RayWorkflowHook) -> Overview:
    """One look at the workflows of a connection; it reads in threads that keep no server from ending."""
    return Overview(hook.store, in_threads=functools.partial(each, at_once=_READ_AT_ONCE))


def origin_of(listed: Listed) -> Origin | None:
    """The task instance that started a workflow; None if none did."""
    return Origin.from_metadata({ORIGIN_KEY: listed.row.origin})
