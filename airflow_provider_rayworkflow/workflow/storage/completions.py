"""Which workflows have ended since a watcher's last look, remembered over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.model.index_row import by_end, time_key
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

_DAY_S = 86_400.0
# Where nothing ends, the ledger is stored after so many versions of the index: the next process looks from there.
_MOST_BEHIND = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """That a workflow got a status.

    :ivar key: of its status document; another one for each end.
    :ivar at: when, as its manager's clock said, in seconds since the epoch.
    """

    workflow_id: str
    status: WorkflowStatus
    key: keys.StatusKey
    at: float

    @classmethod
    def of(cls, listed: Listed) -> Completion:
        return cls(
            workflow_id=listed.workflow_id,
            status=listed.status,
            key=listed.key,
            at=listed.row.last_at,
        )

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
    :ivar floor: what ended before, as the clocks of managers said, is passed on, or not to be; what ended later
        and is passed on is confirmed. In seconds since the epoch.
    :ivar confirmed: by workflow, the name of its status document whose end was passed on last, and when it ended.
    """

    version: int = 0
    floor: float = 0.0
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
    the last day, so that one that is seen in both is passed on once. Where the feed has been made anew, or has
    forgotten that version, all ends of that day are looked at: by the latest end that was passed on, so that a
    wrong clock of one host, of this one too, makes no end come twice, and none be missed but of a manager
    whose clock is behind by more than a day. What had ended before the first look counts as passed on. An end that is not the workflow's status any more at the look is left out.

    What is told twice and what is lost is up to the caller: :meth:`look` gives an end once, and
    gives it again in another process until it is confirmed.

    :param name: of the watcher; unique on the storage.
    :param statuses: that count as an end.
    :param prefix: of the workflow ids to look at.
    :param clock: seconds since the epoch; bounds how long an end that was passed on is remembered.
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
        if ledger is None and not is_whole:
            return self._begin_without_index(overview)
        ledger = ledger or self._first_ledger(overview)
        self._looked_to = overview.version
        segments = overview.changed_since(min(ledger.version, overview.version))
        if overview.version and not overview.tells_since(ledger.version):
            segments.update(end.key.segment for end in self._ended_since(overview, ledger.floor))
            ledger = replace(ledger, version=min(ledger.version, overview.version))
        changed = {
            segment: overview.get(segment)
            for segment in sorted(segments)
            if segment.startswith(self._prefix)
        }
        for segment in [segment for segment, listed in changed.items() if listed is None]:
            ledger.confirmed.pop(segment, None)  # deleted: it may come again
        ended = [
            Completion.of(listed)
            for listed in changed.values()
            if listed is not None and listed.status in self._statuses
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

    def _first_ledger(self, overview: Overview) -> _Ledger:
        """All that has ended by now counts as passed on."""
        latest = max(
            (
                listed.row.last_at
                for status in self._statuses
                for listed in islice(overview.scan(by_end(status), reverse=True), 1)
            ),
            default=0.0,
        )
        floor = max(0.0, min(self._clock(), latest) - _DAY_S)
        confirmed = {
            end.key.segment: [end.key.name, end.at] for end in self._ended_since(overview, floor)
        }
        return _Ledger(version=overview.version, floor=floor, confirmed=confirmed)

    def _ended_since(self, overview: Overview, floor: float) -> Iterator[Completion]:
        for status in self._statuses:
            for listed in overview.scan(by_end(status), low=time_key(floor)):
                if listed.row.segment.startswith(self._prefix):
                    yield Completion.of(listed)

    def _begin_without_index(self, overview: Overview) -> list[Completion]:
        """What has ended by now must not be given when there is an index again."""
        self._looked_to = self._store.index.last_version()
        now = self._clock()
        ended = [
            replace(Completion.of(listed), at=now)
            for listed in overview.list_all()
            if listed.status in self._statuses and listed.row.segment.startswith(self._prefix)
        ]
        ledger = _Ledger(version=self._looked_to, floor=max(0.0, now - _DAY_S))
        self._ledger = self._write(self._with(ledger, ended))
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
        confirmed = ledger.confirmed | {
            end.key.segment: [end.key.name, end.at] for end in passed_on
        }
        waiting = [given.since for given in self._given.values()]
        floor = ledger.floor
        if not waiting:
            latest = max((at for _, at in confirmed.values()), default=0.0)
            floor = max(floor, min(self._clock(), latest) - _DAY_S)
        return _Ledger(
            version=max(ledger.version, min(waiting, default=self._looked_to)),
            floor=floor,
            confirmed={
                segment: (name, at)
                for segment, (name, at) in confirmed.items()
                if segment in self._seen or time_key(at) >= time_key(floor)
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
        body = {"version": ledger.version, "floor": ledger.floor, "confirmed": ledger.confirmed}
        signing = self._store.signing
        self._store.bytes.put(self._key, dump_document(self._key, "watcher", body, signing=signing))
        self._behind = 0
        return ledger


def known_versions(store: WorkflowStore) -> Iterator[int]:
    """The versions of the index that watchers have noted."""
    for entry in store.bytes.list(keys.WATCHERS):
        with suppress(CorruptedDataError, KeyNotFoundError):
            data = store.bytes.get(entry.key)
            version = load_line(entry.key, "watcher", data, signing=store.signing).get("version")
            if isinstance(version, int):
                yield version
