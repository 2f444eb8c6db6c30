"""Bytes in a dictionary: real semantics without a disk, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    Data,
    Entry,
    Put,
    buffers,
    put_each,
)


class MemoryStore:
    """A :class:`ByteStore` that lives in this process."""

    uri = "memory://"
    weakness = ""
    together = 1
    reads_at_once = 1

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def check_writable(self) -> None:
        """Memory can always be written."""

    def put(self, key: str, data: Data) -> None:
        with self._lock:
            self._objects[key] = b"".join(buffers(data))

    def put_if_absent(self, key: str, data: Data) -> bool:
        content = b"".join(buffers(data))
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = content
            return True

    def put_all(self, puts: Sequence[Put]) -> None:
        put_each(self, puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._lock:
            content = self._objects.get(key)
        if content is None:
            raise KeyNotFoundError(key)
        return content[start : None if length is None else start + length]

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.get(source))

    def list(self, folder: str) -> Iterator[Entry]:
        with self._lock:
            entries = [Entry(key, len(content)) for key, content in self._objects.items()]
        return (entry for entry in entries if entry.key.startswith(folder + "/"))

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def delete_folder(self, folder: str) -> None:
        self.delete([entry.key for entry in self.list(folder)])
