"""The one place where storage calls are tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError, StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.storage.backends.wrapped import WrappedStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, Entry, buffers

log = get_logger(__name__)

T = TypeVar("T")

#: How long a call is tried again. The server's answer to the last try may come later.
RETRY_FOR_S = 60.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
# Of a listing, so many entries are held.
_BATCH = 10_000


class RetryingStore(WrappedStore):
    """A :class:`ByteStore` that tries again what may work a moment later.

    That is what the store calls transient: no answer, a server that is overloaded or restarts. A
    full disk, denied access or a missing bucket fail at once. The waits double and are random, so
    that many callers don't come back together.

    :param deadline_s: when it gives up, counted from the first try.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        deadline_s: float = RETRY_FOR_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store)
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._clock = clock

    def check_writable(self) -> None:
        self._try(self._store.check_writable)

    def put(self, key: str, data: Data) -> None:
        self._try(lambda: self._store.put(key, data))

    def put_if_absent(self, key: str, data: Data) -> bool:
        tries = 0

        def put() -> bool:
            nonlocal tries
            tries += 1
            return self._store.put_if_absent(key, data)

        # The answer to an earlier try may have been lost after the write: then it is ours.
        return self._try(put) or (tries > 1 and self._has(key, data))

    def _has(self, key: str, data: Data) -> bool:
        try:
            return self.get(key) == b"".join(buffers(data))
        except KeyNotFoundError:
            return False

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._try(lambda: self._store.get(key, start, length))

    def copy(self, source: str, target: str) -> None:
        self._try(lambda: self._store.copy(source, target))

    def list(self, folder: str) -> Iterator[Entry]:
        listing = _Listing(self._store, folder)
        while batch := self._try(listing.next_batch):
            yield from batch
        if listing.lost is not None:
            raise listing.lost

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self._try(lambda: self._store.delete(wanted))

    def delete_folder(self, folder: str) -> None:
        self._try(lambda: self._store.delete_folder(folder))

    def _try(self, call: Callable[[], T]) -> T:
        give_up = self._clock() + self._deadline_s
        wait = _FIRST_WAIT_S
        while True:
            try:
                return call()
            except StorageError as exc:
                if not exc.is_transient:
                    raise
                pause = random.uniform(wait / 2, wait)
                if self._clock() + pause >= give_up:
                    raise
                log.warning("Storage: %s Trying again in %.1f s.", exc, pause)
                self._sleep(pause)
                wait = min(2 * wait, _LONGEST_WAIT_S)


class _Listing:
    """A listing in batches, each of which may be tried again. It holds one of them.

    Behind the first one, it goes on where it was if the entries come by name, as those of object stores do.

    :ivar lost: why it can't go on; None if it can, or has come to its end.
    """

    def __init__(self, store: ByteStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._last = ""
        self._is_sorted = True
        self._entries = self._from_last()
        self.lost: StorageError | None = None

    def next_batch(self) -> list[Entry]:
        """The next entries; none at the end, or where it is lost.

        :raises StorageError: when the store does not answer; may be called again.
        """
        try:
            batch = list(islice(self._entries, _BATCH))
        except StorageError as exc:
            if not self._is_sorted:
                self.lost = exc
                return []
            self._entries = self._from_last()
            raise
        for entry in batch:
            self._is_sorted = self._is_sorted and self._last < entry.key
            self._last = entry.key
        return batch

    def _from_last(self) -> Iterator[Entry]:
        last = self._last
        for entry in self._store.list(self._folder):
            if not last or entry.key > last:
                yield entry
