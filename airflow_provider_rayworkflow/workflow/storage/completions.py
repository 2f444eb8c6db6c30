"""Which workflows have ended since a watcher's last look, remembered over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

_DAY_S = 86_400.0
# Longer than the clocks of a manager and a watcher differ: of an index that was made anew, ends of a day before
# the watcher's last note are looked at once more.
_REMEMBERED_S = 2 * _DAY_S
# Where nothing ends, the ledger is stored after so many versions of the index: the next process looks from there.
_MOST_BEHIND = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """That a workflow got a status.

    :ivar key: of its status document; another one for each end.
    """

    workflow_id: str
    status: WorkflowStatus
    key: keys.StatusKey

    @classmethod
    def of(cls, listed: Listed) -> Completion:
        return cls(workflow_id=listed.workflow_id, status=listed.status, key=listed.key)

    def to_json(self) -> Json:
        """``{"workflow_id", "status", "epoch"}``; the epoch rises with each start and resume."""
        return {
            "workflow_id": self.workflow_id,
            "status": self.status.value,
            "epoch": self.key.epoch,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ledger:
    """What is stored of a watcher.

    :ivar version: of the index: all ends that came into it by then are passed on.
    :ivar at: when that was so, in seconds since the epoch.
    :ivar confirmed: by workflow, the name of its status document whose end was passed on last, and when.
    """

    version: int = 0
    at: float = 0.0
    confirmed: dict[str, Any] = field(default_factory=dict)

    def name_of(self, segment: str) -> str:
        return str(self.confirmed.get(segment, ("", 0))[0])


@dataclass(frozen=True, slots=True)
class _Given:
    """An end that is not confirmed.

    :ivar since: the version of the index behind which it was found.
    :ivar is_on_the_way: False for one that is to be given again.
    """

    name: str
    since: int
    is_on_the_way: bool = True


class Completions:
    """One watcher's ledger of the ends that it has passed on.

    Ends come from the index's feed, in the order in which they came into the index, and from change logs,
    before they do. The ledger has the version of the index up to which the feed was read, and the ends of
    the last days, so that one that is seen in both is passed on once. What had ended before the first look
    counts as passed on. An end that is not the workflow's status any more at the look is left out.

    What is told twice and what is lost is up to the caller: :meth:`look` gives an end once, and
    gives it again in another process until it is confirmed.

    :param name: of the watcher; unique on the storage.
    :param statuses: that count as an end.
    :param prefix: of the workflow ids to look at.
    :param clock: seconds since the epoch; says how long an end that was passed on is remembered.
    :raises ValueError: for a prefix that is too long.
    """

    def __init__(
        self,
        store: WorkflowStore,
        name: str,
        *,
        statuses: Collection[WorkflowStatus],
        prefix: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._key = keys.watcher_key(name)
        self._statuses = statuses
        self._prefix = keys.quote_prefix(prefix)
        self._clock = clock
        self._ledger: _Ledger | None = None
        self._given: dict[str, _Given] = {}
        self._looked_to = 0
        self._behind = 0
        self._seen: set[str] = set()

    def look(self) -> list[Completion]:
        """The ends that this object has not given yet. Its cost follows what has changed since.

        :raises StorageError: when that can't be read, or the first look not be noted.
        """
        overview = Overview(self._store, patient=True)
        is_whole = overview.load()
        ledger = self._ledger or self._read()
        is_first = ledger is None
        ledger = ledger or _Ledger(version=overview.version)
        if is_first and not is_whole:
            return self._begin_without_index(overview)
        self._looked_to = overview.version
        changed = {
            segment: overview.get(segment)
            for segment in sorted(overview.changed_since(ledger.version))
            if segment.startswith(self._prefix)
        }
        for segment in [segment for segment, listed in changed.items() if listed is None]:
            ledger.confirmed.pop(segment, None)  # deleted: it may come again
        # An index that was made anew gives earlier ends once more.
        earliest = ledger.at - _DAY_S if overview.rebuilt > ledger.version else 0.0
        ended = [
            Completion.of(listed)
            for listed in changed.values()
            if listed is not None
            and listed.status in self._statuses
            and listed.row.last_at >= earliest
        ]
        self._seen = {end.key.segment for end in ended}
        self._given = {one: given for one, given in self._given.items() if one in self._seen}
        if is_first:
            ledger = self._write(self._with(ledger, ended))
        self._ledger = ledger
        given = [end for end in ended if self._give(end, ledger)]
        if not self._given:
            self._go_on(ledger)
        return given

    def _begin_without_index(self, overview: Overview) -> list[Completion]:
        """What has ended by now must not be given when there is an index again."""
        self._looked_to = self._store.index.last_version()
        ended = [
            Completion.of(listed)
            for listed in overview.list_all()
            if listed.status in self._statuses and listed.row.segment.startswith(self._prefix)
        ]
        self._ledger = self._write(self._with(_Ledger(version=self._looked_to), ended))
        return []

    def _go_on(self, ledger: _Ledger) -> None:
        """All that was found is passed on: what came into the index by now need not be looked at again."""
        self._ledger = self._with(ledger, ())
        self._behind += self._ledger.version - ledger.version
        if self._behind >= _MOST_BEHIND:
            self._write(self._ledger)

    def confirm(self, passed_on: Iterable[Completion]) -> None:
        """Note that these need not be given again. One write.

        :raises StorageError: when that can't be written; confirm any later one to try again.
        """
        if self._ledger is None:
            raise ValueError("Look first.")
        confirmed = list(passed_on)
        for end in confirmed:
            given = self._given.get(end.key.segment)
            if given is not None and given.name == end.key.name:
                del self._given[end.key.segment]
        self._ledger = self._with(self._ledger, confirmed)
        self._write(self._ledger)

    def give_again(self, lost: Completion) -> None:
        """Give it once more at the next look."""
        segment = lost.key.segment
        if (given := self._given.get(segment)) is not None and given.name == lost.key.name:
            self._given[segment] = _Given(given.name, given.since, is_on_the_way=False)

    def _give(self, end: Completion, ledger: _Ledger) -> bool:
        """True if it is given now."""
        segment, name = end.key.segment, end.key.name
        given = self._given.get(segment)
        is_known = given is not None and given.name == name
        if ledger.name_of(segment) == name or (is_known and given and given.is_on_the_way):
            return False
        since = given.since if is_known and given else ledger.version
        self._given[segment] = _Given(name, since)
        return True

    def _with(self, ledger: _Ledger, passed_on: Iterable[Completion]) -> _Ledger:
        """The ledger when these are passed on, without what is not needed any more."""
        now = self._clock()
        confirmed = ledger.confirmed | {end.key.segment: [end.key.name, now] for end in passed_on}
        waiting = [given.since for given in self._given.values()]
        return _Ledger(
            version=max(ledger.version, min(waiting, default=self._looked_to)),
            at=ledger.at if waiting else now,
            confirmed={
                segment: (name, at)
                for segment, (name, at) in confirmed.items()
                if segment in self._seen or at > now - _REMEMBERED_S
            },
        )

    def _read(self) -> _Ledger | None:
        try:
            data = self._store.bytes.get(self._key)
            body = load_line(self._key, "watcher", data, signing=self._store.signing)
        except KeyNotFoundError:
            return None
        with understanding(self._key, "watcher"):
            ledger = well_typed(_Ledger(**body))
            for name, at in ledger.confirmed.values():
                if not isinstance(name, str) or not isinstance(at, (int, float)):
                    raise TypeError(f"{name!r:.100}, {at!r:.100}")
            return ledger

    def _write(self, ledger: _Ledger) -> _Ledger:
        body = {"version": ledger.version, "at": ledger.at, "confirmed": ledger.confirmed}
        signing = self._store.signing
        self._store.bytes.put(self._key, dump_document(self._key, "watcher", body, signing=signing))
        self._behind = 0
        return ledger
