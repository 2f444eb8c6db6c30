"""Whether all who read a storage find the same: the poll, lists, what can be resumed, and watchers of ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from typing import get_args

from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.completions import Completion, Completions
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseWatch, Tenure
from airflow_provider_rayworkflow.workflow.storage.listing import (
    LISTED,
    ListFilter,
    Sort,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch

Statuses = dict[str, WorkflowStatus]

ENDED = (
    WorkflowStatus.SUCCESSFUL,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
    WorkflowStatus.CANCELED,
)


def fresh(store: ByteStore, leases: LeaseWatch | None = None) -> WorkflowStore:
    """As another process opens it.

    :param leases: what that has seen of leases.
    """
    opened = WorkflowStore(store)
    opened.leases.watch = leases or opened.leases.watch
    return opened


class Reader:
    """A process that looks at a storage again and again.

    :ivar now: seconds that never jump, as its clock says.
    :ivar given: how often each end was given to a watcher that goes on, by its document and its status.
    :ivar given_anew: to one that starts anew for each look.
    """

    def __init__(self, store: ByteStore, *, watched: tuple[str, ...]) -> None:
        self.now = 1000.0
        self._bytes = store
        self._watched = {quote_id(one): one for one in watched}
        self._leases = LeaseWatch(lambda: self.now)
        self._watch = StatusWatch(
            StatusReader(self._open(), patient=True), lambda: self.now, check_s=float("inf")
        )
        self._goes_on = self._ends("goes on")
        self._before: set[tuple[str, str]] = set()
        self.given: Counter[tuple[str, str]] = Counter()
        self.given_anew: Counter[tuple[str, str]] = Counter()
        self.look()
        self._before = {(key, status) for _, status, key in self._stored()}

    def _open(self) -> WorkflowStore:
        return fresh(self._bytes, self._leases)

    def _ends(self, name: str) -> Completions:
        return Completions(self._open(), name, statuses=ENDED, clock=lambda: self.now)

    def _stored(self) -> list[tuple[str, WorkflowStatus, str]]:
        found = StatusReader(self._open(), patient=True).list_workflows()
        return [(workflow_id, status, key.key) for workflow_id, status, key in found]

    def look(self, *, is_watched: bool = True) -> Statuses:
        """What the poll finds. Watchers pass on what they find.

        :param is_watched: False: there is a poll only.
        """
        found = self._watch.look(self._watched)
        if is_watched:
            self._pass_on(self._goes_on, self.given)
            self._pass_on(self._ends("starts anew"), self.given_anew)
        return {
            self._watched[segment]: one[0]
            for segment, one in found.items()
            if isinstance(one, tuple)
        }

    def _pass_on(self, ends: Completions, given: Counter[tuple[str, str]]) -> None:
        found: list[Completion] = ends.look()
        given.update((one.key.key, one.status) for one in found)
        if found:
            ends.confirm(found)

    def check(self, *, came_again: Collection[str] = ()) -> Statuses:
        """All that this process reads agrees with a plain listing of all statuses, which is returned.

        :param came_again: workflows that were deleted: one that starts anew may have the same end once more.
        """
        stored = self._stored()
        statuses = {workflow_id: status for workflow_id, status, _ in stored}
        found = self.look()
        watched = {one: statuses[one] for one in statuses if one in self._watched.values()}
        assert found == watched, f"the poll finds {found}, stored are {watched}"
        check_lists(self._open(), statuses)
        self._check_ends(stored, came_again)
        return statuses

    def _check_ends(
        self, stored: list[tuple[str, WorkflowStatus, str]], came_again: Collection[str]
    ) -> None:
        for given in (self.given, self.given_anew):
            again = {f"v1/status/{quote_id(one)}/" for one in came_again}
            twice = {
                one
                for one, times in given.items()
                if times > 1 and not one[0].startswith(tuple(again))
            }
            assert not twice, f"given twice: {twice}"
            missed = {
                (key, status)
                for _, status, key in stored
                if not status.is_active and (key, status) not in given
            }
            assert missed <= self._before, f"never given: {missed - self._before}"


def check_lists(store: WorkflowStore, statuses: Statuses) -> None:
    """What lists show, in every order and of every status, and what can be resumed.

    :param statuses: that there are, by id.
    """
    _check_same(_found(Overview(store, patient=True), *LISTED), statuses.items())
    for status in LISTED:
        wanted = [one for one in statuses.items() if one[1] is status]
        _check_same(_found(Overview(store, patient=True), status), wanted)
        chosen = ListFilter(statuses=frozenset({status}))
        _check_same(_listed(store, chosen, "created", descending=True), wanted)
    for sort in get_args(Sort):
        for descending in (False, True):
            listed = _listed(store, ListFilter(), sort, descending=descending)
            _check_same(listed, statuses.items())
    known = Registry(store, manager_id="reader", clock=time.time, tenure=Tenure())
    resumable = [one for one in statuses.items() if one[1] is WorkflowStatus.RESUMABLE]
    _check_same(known.list_with_status([WorkflowStatus.RESUMABLE]), resumable)


def _check_same(
    found: Collection[tuple[str, WorkflowStatus]], stored: Collection[tuple[str, WorkflowStatus]]
) -> None:
    assert sorted(found) == sorted(stored), f"found {sorted(found)}, stored {sorted(stored)}"


def _found(overview: Overview, *statuses: WorkflowStatus) -> list[tuple[str, WorkflowStatus]]:
    return [(one.workflow_id, one.status) for one in overview.find(statuses)]


def _listed(
    store: WorkflowStore, chosen: ListFilter, sort: Sort, *, descending: bool
) -> list[tuple[str, WorkflowStatus]]:
    """All pages of a list."""
    rows, after = [], ""
    while True:
        overview = Overview(store, patient=True)
        page = read_page(overview, chosen, size=2, after=after, sort=sort, descending=descending)
        rows += page.rows
        after = page.next
        if not after:
            return [(one.workflow_id, one.status) for one in rows]
