"""Pages of a list of workflows, by a filter and in an order: a page costs what it shows.

The filter decides which order of the index is read. What no order selects by is looked at row by row, up to a bound:
then the page is *cut*, and the next one goes on. Without an index that serves, the status documents are read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol, get_args

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.model.index_row import (
    BY_CREATION,
    BY_ID,
    BY_LAST,
    behind,
    by_dag,
    by_end,
    by_status,
    time_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import shown
from airflow_provider_rayworkflow.workflow.storage.keys import segment_prefixes, unquote_id
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview, written_as

#: By creation; by the end, where what has not ended stands at its creation; by id.
Sort = Literal["created", "ended", "id"]

#: Statuses that a workflow can have.
LISTED = frozenset(WorkflowStatus) - {WorkflowStatus.NONE}
#: So many rows are looked at for a page, at most.
MOST_LOOKED_AT = 5000
#: Without an index, so many status documents are read for a page, at most.
MOST_READ = 2000
# So many active workflows are asked for their managers when workflows are counted.
_MOST_ASKED = 1000
_DAY_S = 86_400.0


class UnknownPageError(ValueError):
    """What should begin a page begins none of this list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFilter:
    """Which workflows a list has.

    :ivar statuses: empty for any.
    :ivar dag_id: the Airflow DAG whose task instances started them, ``""`` for any.
    :ivar since: the first time of creation, in seconds since the epoch; None for any.
    :ivar until: the time before which they were created, in seconds since the epoch; None for any.
    :ivar text: a part of the id, in any case.
    """

    statuses: frozenset[WorkflowStatus] = frozenset()
    dag_id: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""

    @property
    def selected(self) -> frozenset[WorkflowStatus]:
        """The statuses; empty where it takes all."""
        return frozenset() if self.statuses >= LISTED else self.statuses

    def has(self, listed: Listed) -> bool:
        """True for a workflow that it selects."""
        row = listed.row
        return (
            (not self.statuses or listed.status in self.statuses)
            and self.dag_id in ("", row.dag_id)
            and (self.since is None or self.since <= row.created_at)
            and (self.until is None or row.created_at < self.until)
            and self.text.lower() in listed.workflow_id.lower()
        )

    def begins(self, listed: Listed) -> bool:
        """True for an id that begins with the text as it is."""
        return listed.workflow_id.startswith(self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListPage:
    """One page of a list.

    :ivar next: begins the next page, as text for a URL; ``""`` for the last page. It is of this storage, order and
        filter alone; with other times of creation, it goes on from the same place.
    :ivar is_cut: not all workflows were looked at. More may come with ``next``; where that is ``""``, only a
        narrower filter finds more.
    """

    rows: list[Listed]
    next: str = ""
    is_cut: bool = False


def _all(_: Listed) -> bool:
    return True


def read_page(
    overview: Overview,
    chosen: ListFilter,
    *,
    size: int,
    after: str = "",
    sort: Sort = "created",
    descending: bool = True,
    is_shown: Callable[[Listed], bool] = _all,
    most_looked_at: int = MOST_LOOKED_AT,
    most_read: int = MOST_READ,
) -> ListPage:
    """One page of a list.

    With a text, workflows whose ids begin with it come first, in the order of their ids and on pages of their own.
    Then come those whose ids have it elsewhere or in another case.

    :param size: of the page, in workflows.
    :param after: :attr:`ListPage.next` of the page before, ``""`` for the first one.
    :param is_shown: False for a workflow that the caller must not see. ``next`` may hold the id of such a one.
    :param most_looked_at: in rows of the index.
    :param most_read: without an index, in status documents.
    :raises UnknownPageError: when ``after`` is of another storage, order or filter.
    :raises StorageError: when the storage does not answer.
    """
    start = _Start.of(after, chosen, sort, descending, overview.store.bytes.uri)
    taking = _Taking(chosen, start, size, most_looked_at, is_shown)
    if overview.load():
        try:
            return taking.page(_FromIndex(overview))
        except DataLoadError as exc:
            overview.warn_or_raise(exc)
    source = _FromStatuses(overview, chosen, most_read)
    page = taking.page(source)
    return replace(page, is_cut=page.is_cut or source.is_cut)


def check_begin(
    after: str, chosen: ListFilter, *, sort: Sort = "created", descending: bool = True
) -> None:
    """Return if :func:`read_page` may take this begin of a page, on its storage. Reads nothing.

    :raises UnknownPageError: when ``after`` is of another order or filter.
    """
    _Start.of(after, chosen, sort, descending)


def iterate(
    overview: Overview, chosen: ListFilter, *, sort: Sort = "created", descending: bool = True
) -> Iterator[Listed]:
    """All workflows of a filter, in an order; reads on the way. One that ends meanwhile may come twice.

    Without an index, all status documents are read first.

    :raises StorageError: when the storage does not answer; maybe while the caller iterates.
    """
    start = _Start(sort, descending)
    if overview.load():
        try:
            for place, listed in _FromIndex(overview).walk(chosen, start):
                if place != start.place and chosen.has(listed):
                    yield listed
                start = replace(start, place=place)
            return
        except DataLoadError as exc:
            overview.warn_or_raise(exc)
    for _, listed in _FromStatuses(overview, chosen, None).walk(chosen, start):
        if chosen.has(listed):
            yield listed


def count_last_day(overview: Overview, now: float) -> dict[WorkflowStatus, int]:
    """How many workflows were created in the last 24 hours, by status; empty without an index.

    Of a thousand active ones of a status whose manager is gone, those count as what they are.

    :param now: seconds since the epoch.
    :raises StorageError: when the storage does not answer.
    """
    counts: Counter[WorkflowStatus] = Counter()
    lost: set[WorkflowStatus] = set()
    try:
        if not overview.load():
            return {}
        for (written, manager_id), number in overview.count_created(now - _DAY_S).items():
            counts[written] += number
            if number and overview.look.of(written, manager_id) is not written:
                lost.add(written)
        for written in lost:
            active = overview.scan(by_status(written), low=time_key(now - _DAY_S), reverse=True)
            for listed in islice(active, _MOST_ASKED):
                counts[written] -= 1
                counts[listed.status] += 1
    except DataLoadError as exc:
        overview.warn_or_raise(exc)
        return {}
    return {status: number for status, number in counts.items() if number > 0}


# ---- where a page begins


@dataclass(frozen=True, slots=True)
class _Start:
    """Where in which order a page begins.

    :ivar place: it begins behind this one; ``""`` for the begin.
    :ivar begins: among the workflows whose ids begin with the text.
    :ivar filter: tells the filter from others, by all but the times: an age is another time with each call.
    :ivar storage: tells the storage from others.
    """

    sort: Sort
    descending: bool
    place: str = ""
    begins: bool = False
    filter: str = ""
    storage: str = ""

    @classmethod
    def of(
        cls, after: str, chosen: ListFilter, sort: Sort, descending: bool, uri: str = ""
    ) -> _Start:
        """The begin that a text names.

        :param uri: of the storage; ``""`` for any.
        :raises UnknownPageError: when it is of another list.
        """
        if sort not in get_args(Sort):
            raise ValueError(f"{sort!r:.100} is no order of a list; {get_args(Sort)} are.")
        selects = _sum_of(sorted(chosen.selected), chosen.dag_id, chosen.text)
        first = cls(sort, descending, "", bool(chosen.text), selects, uri and _sum_of(shown(uri)))
        if not after:
            return first
        try:
            padded = after.encode() + b"=" * (-len(after) % 4)
            found = json.loads(base64.b64decode(padded, b"-_", validate=True))
        except (ValueError, binascii.Error, RecursionError):
            found = None
        match found:
            case [str(place), bool(begins), *of_list] if _PLACE.fullmatch(place):
                start = replace(first, place=place, begins=begins and first.begins)
                if of_list[:3] == start._of_list[:3] and (not uri or of_list == start._of_list):
                    return start
        raise UnknownPageError(
            "This is no page of this list: it is of another storage, filter or order. Give those that it was "
            "named with, or begin with the first page."
        )

    @property
    def _of_list(self) -> list[Any]:
        return [self.sort, self.descending, self.filter, self.storage]

    def __str__(self) -> str:
        text = json.dumps([self.place, self.begins, *self._of_list])
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    def bounds(self, low: str = "", high: str = "") -> tuple[str, str]:
        """The first place and the one before which it ends, within these."""
        if not self.place:
            return low, high
        if self.descending:
            return low, min(high, self.place) if high else self.place
        return max(low, self.place + "\0"), high


def _sum_of(*values: Any) -> str:
    """A text that other values don't have."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


_PLACE = re.compile(r"[!-~]{0,300}")
_Placed = tuple[str, Listed]


class _Source(Protocol):
    """Gives workflows with their places; the caller looks whether the filter selects them."""

    def walk(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]: ...

    def walk_ids(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]:
        """Those whose ids begin with the text, by id."""


@dataclass(frozen=True, slots=True)
class _Taking:
    """Takes one page out of a source."""

    chosen: ListFilter
    start: _Start
    size: int
    most_looked_at: int
    is_shown: Callable[[Listed], bool]

    def page(self, source: _Source) -> ListPage:
        start = self.start
        if start.begins:
            page = self._take(source.walk_ids(self.chosen, start), start)
            if page.next:
                return page
            start = replace(start, place="", begins=False)
            if page.rows:
                return replace(page, next=str(start), is_cut=True)
        return self._take(source.walk(self.chosen, start), start)

    def _take(self, placed: Iterable[_Placed], start: _Start) -> ListPage:
        rows: dict[str, Listed] = {}  # what moves meanwhile may come twice
        last = start.place
        looked_at = start
        for number, (place, listed) in enumerate(placed):
            if number == self.most_looked_at:
                is_full = len(rows) == self.size
                return ListPage(rows=list(rows.values()), next=str(looked_at), is_cut=not is_full)
            looked_at = replace(start, place=place)
            if not self._takes(listed, start) or listed.row.segment in rows:
                continue
            if len(rows) == self.size:
                return ListPage(rows=list(rows.values()), next=str(replace(start, place=last)))
            rows[listed.row.segment] = listed
            last = place
        return ListPage(rows=list(rows.values()))

    def _takes(self, listed: Listed, start: _Start) -> bool:
        chosen = self.chosen
        is_meant = not chosen.text or chosen.begins(listed) == start.begins
        return is_meant and chosen.has(listed) and self.is_shown(listed)


# ---- with the index


class _FromIndex:
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def walk(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]:
        low = high = ""
        if start.sort == "created":
            low = "" if chosen.since is None else time_key(chosen.since)
            high = "" if chosen.until is None else behind(f"{time_key(chosen.until)}/")
        low, high = start.bounds(low, high)
        orders = _orders(chosen, start.sort)
        return self._overview.merge(orders, low=low, high=high, reverse=start.descending)

    def walk_ids(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]:
        prefixes = _segment_prefixes(chosen.text)
        for prefix in reversed(prefixes) if start.descending else prefixes:
            low, high = start.bounds(prefix, behind(prefix))
            if low < high:
                yield from self._overview.merge(
                    [BY_ID], low=low, high=high, reverse=start.descending
                )


def _orders(chosen: ListFilter, sort: Sort) -> list[str]:
    """The orders of the index that together have all that the filter selects, and the least else."""
    if sort == "id":
        return [BY_ID]
    written = written_as(chosen.selected)
    if sort == "ended":
        ended = [by_status(one) if one.is_active else by_end(one) for one in written]
        return ended or [BY_LAST]
    if chosen.dag_id:
        return [by_dag(chosen.dag_id, status) for status in written] or [by_dag(chosen.dag_id)]
    return [by_status(status) for status in written] or [BY_CREATION]


def _segment_prefixes(text: str) -> tuple[str, ...]:
    try:
        return segment_prefixes(text)
    except UnicodeEncodeError:
        return ()


# ---- without it


class _FromStatuses:
    """Reads the status documents of what may be selected: what is active first, then the greatest ids.

    :param most_read: how many, None for all.
    :ivar is_cut: there are more.
    """

    def __init__(self, overview: Overview, chosen: ListFilter, most_read: int | None) -> None:
        greatest, text = _Greatest(most_read), chosen.text.lower()
        for listed in overview.list_names():
            has_status = not chosen.statuses or listed.status in chosen.statuses
            # Of a long id, the document tells.
            known = unquote_id(listed.row.segment)
            if has_status and (known is None or text in known.lower()):
                greatest.add(listed)
        # One comes twice whose status was replaced just now.
        found = {listed.row.segment: listed for listed in greatest.take()}
        self.is_cut = greatest.is_cut
        self._found = overview.read([*found.values()])

    def walk(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]:
        return _sorted(((_place(one, start.sort), one) for one in self._found), start)

    def walk_ids(self, chosen: ListFilter, start: _Start) -> Iterator[_Placed]:
        found = [(one.row.segment, one) for one in self._found if chosen.begins(one)]
        return _sorted(found, start)


class _Greatest:
    """Keeps the greatest of many workflows, in little memory: what is active first, then by id.

    Ids of task instances end with the time of their run.

    :param most: how many, None for all.
    :ivar is_cut: others came, too.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._kept: list[Listed] = []
        self.is_cut = False

    def add(self, listed: Listed) -> None:
        self._kept.append(listed)
        if self._most is not None and len(self._kept) > 2 * self._most:
            self.take()

    def take(self) -> list[Listed]:
        """What it has kept."""
        if self._most is not None and len(self._kept) > self._most:
            self._kept.sort(key=lambda one: (one.status.is_active, one.row.segment), reverse=True)
            self.is_cut = True
            del self._kept[self._most :]
        return self._kept


def _sorted(found: Iterable[_Placed], start: _Start) -> Iterator[_Placed]:
    low, high = start.bounds()
    within = [item for item in found if low <= item[0] and (not high or item[0] < high)]
    yield from sorted(within, key=lambda item: item[0], reverse=start.descending)


def _place(listed: Listed, sort: Sort) -> str:
    """The same place as the index has for it."""
    row = listed.row
    if sort == "id":
        return row.segment
    is_ended = sort == "ended" and not row.status.is_active
    return f"{time_key(row.last_at if is_ended else row.created_at)}/{row.segment}"
