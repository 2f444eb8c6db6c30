"""Figures of what is written: how much, how long it took, what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.storage.backends.wrapped import WrappedStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, Put, buffers
from airflow_provider_rayworkflow.workflow.storage.keys import Kind, kind_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """One write.

    :ivar size: in bytes.
    :ivar seconds: until it was durable or had failed, waits between tries included.
    :ivar failed: it raised a :class:`StorageError`.
    """

    kind: Kind
    size: int
    seconds: float
    failed: bool = False


class MeasuredStore(WrappedStore):
    """A :class:`ByteStore` that tells of its writes; the bytes of a copy are not written from here.

    :param on_write: told each one, in the thread that made it.
    """

    def __init__(self, store: ByteStore, on_write: Callable[[Write], None]) -> None:
        super().__init__(store)
        self._on_write = on_write

    def put(self, key: str, data: Data) -> None:
        with self._measuring(key, data):
            self._store.put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        with self._measuring(key, data):
            return self._store.put_if_absent(key, data)

    def put_all(self, puts: Sequence[Put]) -> None:
        begun = time.monotonic()
        self._store.put_all(puts)
        for put in puts:
            self._tell(put.key, put.data, begun, failed=isinstance(put.error, StorageError))

    @contextmanager
    def _measuring(self, key: str, data: Data) -> Iterator[None]:
        begun, failed = time.monotonic(), False
        try:
            yield
        except StorageError:
            failed = True
            raise
        finally:
            self._tell(key, data, begun, failed=failed)

    def _tell(self, key: str, data: Data, begun: float, *, failed: bool) -> None:
        self._on_write(
            Write(
                kind=kind_of(key),
                size=sum(memoryview(buffer).nbytes for buffer in buffers(data)),
                seconds=time.monotonic() - begun,
                failed=failed,
            )
        )
