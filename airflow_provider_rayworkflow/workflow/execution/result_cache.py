"""The cache as the tasks of one manager use it: each result is looked up, and computed, once at a time.

Nothing here may block or fail a workflow: what goes wrong costs a computation. A task that wants a result which another
one computes waits, and holds no worker and no CPU.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.execution.cache_calls import (
    Asked,
    CacheCalls,
    CacheLook,
    Kept,
)
from airflow_provider_rayworkflow.workflow.execution.cache_requests import CacheRequest
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

T = TypeVar("T")

# So many results are looked up or written in one call of a thread at most, and so many calls are made at once.
_TOGETHER = 50
_MOST_CALLS = 16
# What waits to be written takes so much memory at most, in bytes; the results of more tasks are not kept.
_MOST_WAITING = 64 * 1024 * 1024
_CLOSE_S = 10.0


@dataclass(slots=True, eq=False)
class _Wanted:
    """One result that tasks want.

    :ivar waiting: those that ask, in their order.
    :ivar computing: the one that runs, and that the others wait for.
    :ivar is_elsewhere: another manager computes it, and those that wait have been told.
    :ivar claim: the key of this manager's claim on the result, ``""`` for none.
    """

    key: str
    waiting: dict[CacheRequest, None] = field(default_factory=dict)
    computing: CacheRequest | None = None
    is_elsewhere: bool = False
    claim: str = ""


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
        self._storage = CacheCalls(store, manager_id=manager_id, clock=clock)
        self._threads = threads
        self._clock = clock
        self._interval_s = interval_s
        self._most_calls = max(1, min(store.bytes.reads_at_once, _MOST_CALLS))
        self._wanted: dict[str, _Wanted] = {}
        self._due: deque[_Wanted] = deque()
        self._to_keep: deque[Kept] = deque()
        self._waiting_bytes = 0
        self._to_give_back: list[str] = []
        self._gives_back = False
        self._looks, self._writes = 0, 0
        self._calls: set[asyncio.Future[None]] = set()

    # ---- asking

    def ask(self, request: CacheRequest) -> None:
        """Look for a result; the request is told, soon or when another task has computed it."""
        wanted = self._wanted.get(request.key)
        if wanted is None:
            wanted = self._wanted[request.key] = _Wanted(request.key, {request: None})
            self._look_for(wanted)
            return
        wanted.waiting[request] = None
        if wanted.computing is not None:
            request.wait(wanted.computing.task)

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
        kept = Kept(request, result, source)
        if (
            self._waiting_bytes > _MOST_WAITING
        ):  # the storage is slow; the workflow has its checkpoint
            self.release(request)
            return
        self._waiting_bytes += kept.size
        self._to_keep.append(kept)
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
            some = self._some(self._due)
            asked = [Asked(one.key, one.claim, list(one.waiting)) for one in some]
            self._looks += 1
            self._call(partial(self._storage.look, asked), partial(self._looked, some, asked))

    def _looked(
        self,
        some: Sequence[_Wanted],
        asked: Sequence[Asked],
        looks: Sequence[CacheLook] | BaseException,
    ) -> None:
        self._looks -= 1
        if isinstance(looks, BaseException):
            log.warning("The cache can't be used, so tasks run: %s", said_by(looks))
            looks = [CacheLook({}, one.claim) for one in asked]
        for wanted, one, look in zip(some, asked, looks, strict=True):
            wanted.claim = look.claim
            for request, cached in look.found.items():
                if request in wanted.waiting:  # else it was stopped meanwhile
                    del wanted.waiting[request]
                    request.tell(cached)
            self._go_on(wanted, one.requests, is_elsewhere=look.is_elsewhere)
        self._look_for_some()

    def _go_on(
        self, wanted: _Wanted, requests: Sequence[CacheRequest], *, is_elsewhere: bool
    ) -> None:
        """After a look: one of those that did not find the result computes it."""
        first = next((request for request in requests if request in wanted.waiting), None)
        if is_elsewhere and wanted.waiting:
            if not wanted.is_elsewhere:
                _wait(wanted, "a task of another manager")
            asyncio.get_running_loop().call_later(self._interval_s, self._look_for, wanted)
        elif first is None:
            self._look_for(wanted)  # for those that came meanwhile
        else:
            del wanted.waiting[first]
            wanted.computing = first
            first.tell(None)
            _wait(wanted, first.task)
        wanted.is_elsewhere = is_elsewhere

    def _forget(self, wanted: _Wanted) -> None:
        if self._wanted.get(wanted.key) is wanted:
            del self._wanted[wanted.key]
        if wanted.claim:
            self._to_give_back.append(wanted.claim)
            wanted.claim = ""
            self._give_back_all()

    # ---- writing

    def _keep_some(self) -> None:
        while self._to_keep and self._writes < self._most_calls:
            kept = self._some(self._to_keep)
            self._writes += 1
            self._call(partial(self._storage.write, kept), partial(self._kept, kept))

    def _kept(self, kept: Sequence[Kept], size: int | BaseException) -> None:
        self._writes -= 1
        self._waiting_bytes -= sum(one.size for one in kept)
        if isinstance(size, BaseException):
            log.warning("Results can't be put into the cache: %s", said_by(size))
        else:
            self.on_written(size)
        for one in kept:
            self.release(one.request)
        self._keep_some()

    def _give_back_all(self) -> None:
        if self._gives_back:
            return
        self._gives_back = True
        claims, self._to_give_back = self._to_give_back, []
        self._call(partial(self._storage.give_back, claims), partial(self._gave_back, claims))

    def _gave_back(self, claims: Sequence[str], outcome: BaseException | None) -> None:
        self._gives_back = False
        is_more = bool(self._to_give_back)
        if outcome is not None:
            # The next one tries it again; a claim ends with this manager's lease.
            log.warning("Claims in the cache can't be given back now: %s", said_by(outcome))
            self._to_give_back.extend(claims)
        if is_more:
            self._give_back_all()

    # ---- threads

    def _some(self, waiting: deque[T]) -> list[T]:
        """Take what one call is to do: less towards the end, so that all calls end at about the same time."""
        share = len(waiting) // (2 * self._most_calls) + 1
        return [waiting.popleft() for _ in range(min(share, _TOGETHER))]

    def _call(self, call: Callable[[], T], then: Callable[[T | BaseException], None]) -> None:
        """Call what blocks, and go on with what it returns or raises."""

        async def work() -> None:
            try:
                outcome: T | BaseException = await asyncio.get_running_loop().run_in_executor(
                    self._threads, call
                )
            except (asyncio.CancelledError, GeneratorExit):
                raise  # with the whole manager, and its event loop
            except BaseException as exc:  # those who ask have to be told, whatever it is
                outcome = exc
            then(outcome)

        task = asyncio.ensure_future(work())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


def _wait(wanted: _Wanted, computing: str) -> None:
    for request in wanted.waiting:
        request.wait(computing)
