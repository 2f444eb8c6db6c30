"""The cache as the tasks of one manager use it: each result is looked up, and computed, once at a time.

Nothing here may block or fail a workflow: what goes wrong costs a computation. A task that wants a result which another
one computes waits, and holds no worker and no CPU.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    StorageError,
    text_of,
)
from airflow_provider_rayworkflow.workflow.execution.cache_requests import Cached, CacheRequest
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.codec import json_output
from airflow_provider_rayworkflow.workflow.model.records import Encoding, JsonOutput, Result
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put, buffers
from airflow_provider_rayworkflow.workflow.storage.cache_claims import CacheClaims
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CachedObject, CacheEntries
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook, StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

T = TypeVar("T")

# So many results are looked up or written in one call of a thread, and so many calls are made at once.
_TOGETHER = 50
_MOST_CALLS = 16
_CLOSE_S = 10.0


@dataclass(slots=True, eq=False)
class _Wanted:
    """One result that tasks want.

    :ivar waiting: those that ask, in their order.
    :ivar computing: the one that runs, and that the others wait for.
    :ivar claim: the key of this manager's claim on the result, ``""`` for none.
    """

    key: str
    waiting: dict[CacheRequest, None] = field(default_factory=dict)
    computing: CacheRequest | None = None
    claim: str = ""


class _Look(NamedTuple):
    """What a look into the storage found of one result.

    :ivar found: by request.
    :ivar claim: of this manager, ``""`` for none.
    :ivar is_elsewhere: another manager computes it.
    """

    found: Mapping[CacheRequest, Cached]
    claim: str = ""
    is_elsewhere: bool = False


class ResultCache:
    """The results that the workflows of one manager take from others. It belongs to one event loop.

    :param threads: where storage calls block.
    :param clock: seconds since the epoch.
    :param interval_s: between looks for a result that another manager computes.
    :ivar is_used: False where tasks take and keep nothing.
    :ivar on_written: told how many bytes were put into the cache.
    """

    def __init__(
        self,
        store: WorkflowStore,
        threads: ThreadPool,
        *,
        manager_id: str,
        clock: Callable[[], float],
        interval_s: float,
    ) -> None:
        self.is_used = True
        self.on_written: Callable[[int], None] = lambda size: None
        self._entries = CacheEntries(store)
        self._claims = CacheClaims(store, manager_id)
        self._statuses = StatusReader(store, clock, patient=True)
        self._store = store
        self._threads = threads
        self._clock = clock
        self._interval_s = interval_s
        self._most_calls = max(1, min(store.bytes.reads_at_once, _MOST_CALLS))
        self._wanted: dict[str, _Wanted] = {}
        self._due: deque[_Wanted] = deque()
        self._to_keep: deque[tuple[CacheRequest, Result, CacheSource]] = deque()
        self._to_give_back: list[str] = []
        self._looks, self._writes = 0, 0
        self._calls: set[asyncio.Future[None]] = set()
        self._has_warned = False

    # ---- asking

    def ask(self, request: CacheRequest) -> None:
        """Look for a result; the request is told, soon or when another task has computed it."""
        wanted = self._wanted.get(request.key)
        if wanted is None:
            wanted = self._wanted[request.key] = _Wanted(request.key, {request: None})
            self._look_for(wanted)
        else:
            wanted.waiting[request] = None

    def release(self, request: CacheRequest) -> None:
        """A request is of no use any more: its task has ended, or it does not wait for it."""
        wanted = self._wanted.get(request.key)
        if wanted is None:
            return
        wanted.waiting.pop(request, None)
        if wanted.computing is request:
            wanted.computing = None
            self._look_for(wanted)

    def keep(self, request: CacheRequest, result: Result) -> None:
        """Put a committed result into the cache, in the background; then those who wait for it get it."""
        source = CacheSource(
            workflow_id=request.workflow_id, task_id=request.task_id, made_at=self._clock()
        )
        self._to_keep.append((request, result, source))
        self._keep_some()

    async def close(self) -> None:
        """Wait until what is under way is written; for ten seconds at most."""
        for wanted in list(self._wanted.values()):
            wanted.waiting.clear()
            self._forget(wanted)
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._calls:
                    await asyncio.wait(self._calls)
        except TimeoutError:
            log.warning("Some results are not in the cache: the manager ends before that")

    # ---- looking

    def _look_for(self, wanted: _Wanted) -> None:
        if not wanted.waiting:
            self._forget(wanted)
            return
        self._due.append(wanted)
        self._look_for_some()

    def _look_for_some(self) -> None:
        while self._due and self._looks < self._most_calls:
            asked = [(one, list(one.waiting)) for one in _some(self._due)]
            self._looks += 1
            self._call(partial(self._look, asked), partial(self._looked, asked))

    def _look(self, asked: Sequence[tuple[_Wanted, list[CacheRequest]]]) -> list[_Look]:
        """What the storage has of several results, and claims on those that are missing. Blocks."""
        managers = self._statuses.look()
        looks: list[_Look] = []
        claims: dict[int, Put] = {}
        problem: BaseException | None = None
        for wanted, requests in asked:
            try:
                look, claim = self._look_at(wanted, requests, managers)
            except StorageError as exc:
                problem = exc
                look, claim = _Look({}, wanted.claim), None
            if claim is not None:
                claims[len(looks)] = claim
            looks.append(look)
        self._store.bytes.put_all(list(claims.values()))
        for index, put in claims.items():
            try:
                looks[index] = self._claimed(*asked[index], looks[index], put)
            except StorageError as exc:
                problem = exc
                looks[index] = looks[index]._replace(claim=put.key)
        if problem is not None and not self._has_warned:
            log.warning("The cache can't be used, so tasks run: %s", text_of(problem))
        self._has_warned = problem is not None
        return looks

    def _look_at(
        self, wanted: _Wanted, requests: Sequence[CacheRequest], managers: StatusLook
    ) -> tuple[_Look, Put | None]:
        """What is found of a result, and the claim on it where it has to be computed."""
        objects = self._entries.list_of(wanted.key)
        found = self._find(requests, objects)
        if wanted.claim or len(found) == len(requests):
            return _Look(found, wanted.claim), None
        claim = self._claims.claim_put(wanted.key, objects, managers)
        return _Look(found, is_elsewhere=claim is None), claim

    def _claimed(
        self, wanted: _Wanted, requests: Sequence[CacheRequest], look: _Look, put: Put
    ) -> _Look:
        if put.error is not None:
            raise put.error
        if not put.is_new:
            return look._replace(is_elsewhere=True)
        # It may have been computed, and the claim given back, between the listing and the claim.
        missing = [request for request in requests if request not in look.found]
        found = self._find(missing, self._entries.list_of(wanted.key))
        return _Look({**look.found, **found}, put.key)

    def _find(
        self, requests: Sequence[CacheRequest], objects: Sequence[CachedObject]
    ) -> dict[CacheRequest, Cached]:
        found = {}
        for request in requests:
            if (cached := self._cached(request, objects)) is not None:
                found[request] = cached
        return found

    def _cached(self, request: CacheRequest, objects: Sequence[CachedObject]) -> Cached | None:
        max_age_s = request.options.max_age_s
        for entry in self._entries.find(objects, now=self._clock(), max_age_s=max_age_s):
            try:
                result = self._entries.give(
                    entry, request.workflow_id, epoch=request.epoch, task_id=request.task_id
                )
                known = self._json_of(result) if request.wants_json else None
            except CorruptedDataError as exc:
                log.warning("An entry of the cache does not count: %s", exc)
                continue
            return Cached(result, entry.source, known)
        return None

    def _json_of(self, result: Result) -> JsonOutput | None:
        if result.encoding is not Encoding.JSON:
            return None
        return json_output(self._store.values.read_json(result))

    def _looked(
        self,
        asked: Sequence[tuple[_Wanted, list[CacheRequest]]],
        looks: Sequence[_Look] | BaseException,
    ) -> None:
        self._looks -= 1
        if isinstance(looks, BaseException):
            log.warning("The cache can't be read, so tasks run: %s", text_of(looks))
            looks = [_Look({}, wanted.claim) for wanted, _ in asked]
        for (wanted, requests), look in zip(asked, looks, strict=True):
            wanted.claim = look.claim
            for request, cached in look.found.items():
                if request in wanted.waiting:  # else it was stopped meanwhile
                    del wanted.waiting[request]
                    request.tell(cached)
            self._go_on(wanted, requests, is_elsewhere=look.is_elsewhere)
        self._look_for_some()

    def _go_on(
        self, wanted: _Wanted, requests: Sequence[CacheRequest], *, is_elsewhere: bool
    ) -> None:
        """After a look: one of those that did not find the result computes it."""
        first = next((request for request in requests if request in wanted.waiting), None)
        if is_elsewhere and wanted.waiting:
            asyncio.get_running_loop().call_later(self._interval_s, self._look_for, wanted)
        elif first is None:
            self._look_for(wanted)  # for those that came meanwhile
        else:
            del wanted.waiting[first]
            wanted.computing = first
            first.tell(None)

    def _forget(self, wanted: _Wanted) -> None:
        if self._wanted.get(wanted.key) is wanted:
            del self._wanted[wanted.key]
        if wanted.claim:
            self._to_give_back.append(wanted.claim)
            wanted.claim = ""
            self._call(self._give_back, self._gave_back)

    # ---- writing

    def _keep_some(self) -> None:
        while self._to_keep and self._writes < self._most_calls:
            kept = _some(self._to_keep)
            self._writes += 1
            self._call(partial(self._write, kept), partial(self._kept, kept))

    def _write(self, kept: Sequence[tuple[CacheRequest, Result, CacheSource]]) -> int:
        puts, size = [], 0
        problem: BaseException | None = None
        for request, result, source in kept:
            options = request.options
            expires_at = source.made_at + options.max_age_s + 1 if options.max_age_s else 0.0
            try:
                put = self._entries.entry_put(
                    request.key, options.function, source, result, expires_at=expires_at
                )
            except StorageError as exc:
                problem = exc
                continue
            puts.append(put)
            size += sum(memoryview(part).nbytes for part in buffers(put.data))
            size += result.blob.size if result.blob else 0
        self._store.bytes.put_all(puts)
        problem = next((put.error for put in puts if put.error is not None), problem)
        if problem is not None:
            log.warning("Results can't be put into the cache: %s", text_of(problem))
        return size

    def _kept(
        self,
        kept: Sequence[tuple[CacheRequest, Result, CacheSource]],
        size: int | BaseException,
    ) -> None:
        self._writes -= 1
        if isinstance(size, BaseException):
            log.warning("Results can't be put into the cache: %s", text_of(size))
        else:
            self.on_written(size)
        for request, _, _ in kept:
            self.release(request)
        self._keep_some()

    def _give_back(self) -> list[str]:
        claims = list(self._to_give_back)
        self._claims.give_back(claims)
        return claims

    def _gave_back(self, claims: list[str] | BaseException) -> None:
        if isinstance(claims, BaseException):
            # The next one tries it again; a claim ends with this manager's lease.
            log.warning("A claim in the cache can't be given back now: %s", text_of(claims))
            return
        self._to_give_back = [one for one in self._to_give_back if one not in claims]

    # ---- threads

    def _call(self, call: Callable[[], T], then: Callable[[T | BaseException], None]) -> None:
        """Call what blocks, and go on with what it returns or raises."""

        async def work() -> None:
            try:
                outcome: T | BaseException = await asyncio.get_running_loop().run_in_executor(
                    self._threads, call
                )
            except asyncio.CancelledError:
                raise  # with the whole manager
            except BaseException as exc:  # those who ask have to be told, whatever it is
                outcome = exc
            then(outcome)

        task = asyncio.ensure_future(work())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


def _some(waiting: deque[T]) -> list[T]:
    return [waiting.popleft() for _ in range(min(len(waiting), _TOGETHER))]
