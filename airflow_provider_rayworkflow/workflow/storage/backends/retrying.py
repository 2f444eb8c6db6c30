"""The one place where storage calls are tried again."""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError, StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    ByteStore,
    Data,
    Entry,
    Put,
    buffers,
)

log = get_logger(__name__)

T = TypeVar("T")

#: How long a call is tried again. The server's answer to the last try may come later.
RETRY_FOR_S = 60.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
# So many entries of a listing are packed together.
_PAGE = 1000


class RetryingStore:
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
        self._store = store
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._clock = clock

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def weakness(self) -> str:
        return self._store.weakness

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

    @property
    def together(self) -> int:
        return self._store.together

    @property
    def reads_at_once(self) -> int:
        return self._store.reads_at_once

    def put_all(self, puts: Sequence[Put]) -> None:
        self._store.put_all(puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._try(lambda: self._store.get(key, start, length))

    def copy(self, source: str, target: str) -> None:
        self._try(lambda: self._store.copy(source, target))

    def list(self, folder: str) -> Iterator[Entry]:
        # As a whole: what fails between two pages is tried again from the first one.
        return self._try(lambda: _held(self._store.list(folder)))

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


def _held(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same when all of them have come. Of many, most are held in a tenth of the memory."""
    first = [*islice(entries, _PAGE)]
    packed = [_packed(page) for page in iter(lambda: [*islice(entries, _PAGE)], [])]
    return chain(first, chain.from_iterable(map(_unpacked, packed)))


_Page = tuple[bytes, list[Entry]]


def _packed(page: Sequence[Entry]) -> _Page:
    objects = [(entry.key, entry.size) for entry in page if entry.problem is None]
    problems = [entry for entry in page if entry.problem is not None]
    return zlib.compress(json.dumps(objects).encode(), 1), problems


def _unpacked(page: _Page) -> Iterator[Entry]:
    packed, problems = page
    for key, size in json.loads(zlib.decompress(packed)):
        yield Entry(key, size)
    yield from problems
