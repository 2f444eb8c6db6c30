"""Writes of running workflows: those that several of them want at the same time share a call.

A thread that is given something to write, and the event loop that hears of it, take a tenth of a
millisecond for that; on files, what is written together shares steps as well. So one thread is
given all that has come while the last writes were under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put, put_each

log = get_logger(__name__)


class Guard(Protocol):
    """Says whether something may be written: both methods raise if not."""

    def check(self) -> None:
        """Called in a thread, right before the write."""

    def confirm(self) -> None:
        """Called after it, before anything is told of it."""


@dataclass(slots=True, eq=False)
class _Wanted:
    make: Callable[[], Put]
    done: asyncio.Future[bool]
    guard: Guard | None = None
    put: Put | None = None
    error: BaseException | None = None

    def prepare(self) -> Put | None:
        """What is written now, None if nothing may be."""
        try:
            self.put = self.put or self.make()
            if self.guard is not None:
                self.guard.check()
        except BaseException as exc:
            self.error = exc
            return None
        return self.put

    def tell(self, error: BaseException | None) -> None:
        """Give the caller of :meth:`Writes.put` the result, or the error.

        :param error: of the write of the whole group.
        """
        error = error or self.failure or self._refusal()
        if self.done.cancelled():
            return
        if error is not None or self.put is None:
            self.done.set_exception(error or RuntimeError("nothing was written"))
        else:
            self.done.set_result(self.put.is_new)

    def _refusal(self) -> BaseException | None:
        try:
            if self.guard is not None:
                self.guard.confirm()
        except BaseException as exc:
            return exc
        return None

    @property
    def failure(self) -> BaseException | None:
        return self.error or (self.put.error if self.put else None)


class Writes:
    """The writes and deletions of one manager. It belongs to one event loop.

    :param threads: where they block.
    """

    def __init__(self, store: ByteStore, threads: ThreadPool) -> None:
        self._store = store
        self._threads = threads
        self._waiting: list[_Wanted] = []
        self._is_writing = False
        self._to_delete: list[tuple[str, asyncio.Future[None]]] = []
        self._is_deleting = False

    def put(
        self, make: Callable[[], Put], *, alone: bool = False, guard: Guard | None = None
    ) -> asyncio.Future[bool]:
        """Write an object; True when it is durable, False if it must be new and is not.

        :param make: returns the write; called in a thread.
        :param alone: this is large: nothing is written together with it.
        :param guard: says whether it may be written; what it raises is raised here.
        :raises StorageError: when that fails.
        """
        loop = asyncio.get_running_loop()
        wanted = _Wanted(make, loop.create_future(), guard)
        if alone or self._store.together == 1:
            self._write_alone(wanted)
            return wanted.done
        self._waiting.append(wanted)
        if not self._is_writing:  # once for all that is wanted in this turn of the loop
            self._is_writing = True
            loop.call_soon(self._write_group)
        return wanted.done

    def delete(self, key: str) -> asyncio.Future[None]:
        """Delete an object that is of no use any more, if there is one; it may stay if that fails."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_delete.append((key, done))
        if not self._is_deleting:
            self._is_deleting = True
            asyncio.get_running_loop().call_soon(self._delete)
        return done

    def _write_alone(self, wanted: _Wanted) -> None:
        def write() -> None:
            if (put := wanted.prepare()) is not None:
                put_each(self._store, [put])

        written = self._in_thread(write)
        written.add_done_callback(lambda _: wanted.tell(written.exception()))

    def _write_group(self) -> None:
        most = self._store.together
        group, self._waiting = self._waiting[:most], self._waiting[most:]

        def write() -> None:
            self._store.put_all([put for one in group if (put := one.prepare()) is not None])

        def tell(written: asyncio.Future[None]) -> None:
            for wanted in group:
                if wanted.put and _is_transient(wanted.put.error):
                    wanted.put.error = None
                    self._write_alone(wanted)  # which tries again, and keeps no other write waiting
                else:
                    wanted.tell(written.exception())
            self._is_writing = bool(self._waiting)
            if self._is_writing:
                self._write_group()

        written = self._in_thread(write)
        written.add_done_callback(tell)

    def _delete(self) -> None:
        group, self._to_delete = self._to_delete, []

        def tell(deleted: asyncio.Future[None]) -> None:
            error = deleted.exception()
            if isinstance(error, StorageError):
                log.warning("What is of no use any more can't be deleted: %s", error)
            for _, done in group:
                if done.cancelled():
                    continue
                if error is None or isinstance(error, StorageError):
                    done.set_result(None)
                else:
                    done.set_exception(error)
            self._is_deleting = bool(self._to_delete)
            if self._is_deleting:
                self._delete()

        deleted = self._in_thread(lambda: self._store.delete([key for key, _ in group]))
        deleted.add_done_callback(tell)

    def _in_thread(self, function: Callable[[], None]) -> asyncio.Future[None]:
        """Call what blocks; where no thread can be had, that is the future's error."""
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._threads, function)
        except Exception as exc:
            failed: asyncio.Future[None] = loop.create_future()
            failed.set_exception(exc)
            return failed


def _is_transient(error: BaseException | None) -> bool:
    return isinstance(error, StorageError) and error.is_transient
