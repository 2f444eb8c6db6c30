"""A store on another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, Entry, Put


class WrappedStore:
    """A :class:`ByteStore` that passes each call on; those that it has to change are its own."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def weakness(self) -> str:
        return self._store.weakness

    @property
    def together(self) -> int:
        return self._store.together

    @property
    def reads_at_once(self) -> int:
        return self._store.reads_at_once

    def check_writable(self) -> None:
        self._store.check_writable()

    def put(self, key: str, data: Data) -> None:
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        return self._store.put_if_absent(key, data)

    def put_all(self, puts: Sequence[Put]) -> None:
        self._store.put_all(puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start, length)

    def copy(self, source: str, target: str) -> None:
        self._store.copy(source, target)

    def list(self, folder: str) -> Iterator[Entry]:
        return self._store.list(folder)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(keys)

    def delete_folder(self, folder: str) -> None:
        self._store.delete_folder(folder)
