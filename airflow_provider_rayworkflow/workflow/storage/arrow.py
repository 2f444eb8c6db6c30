"""Bytes on whatever ``pyarrow.fs`` reaches: S3, GCS, Azure, HDFS, fsspec file systems."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.storage.bytes import Data, Entry, buffers

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: Stores whose writes are atomic and which have no folders to be made.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


class ArrowStore:
    """A :class:`~.bytes.ByteStore` below one folder of a pyarrow file system.

    An object store's writes replace atomically; elsewhere a temporary file is renamed. There is
    no atomic create-if-absent in pyarrow: here it is a look, a write and a look again, so that
    two managers which claim the same workflow within milliseconds may both succeed.

    :param location: what opens the same storage elsewhere.
    """

    def __init__(self, filesystem: FileSystem, root: str, *, location: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._location = location
        base = getattr(filesystem, "base_fs", filesystem)
        self._has_folders = base.type_name not in _OBJECT_STORES

    @property
    def uri(self) -> str:
        return self._location

    def check_writable(self) -> None:
        key = f"probe/{uuid.uuid4().hex}"
        try:
            self.put(key, b"")
            self.delete([key])
        except DataSaveError as exc:
            raise DataSaveError(
                f"The workflow storage {self._root!r} can't be written: {exc.__cause__}. "
                "Check that it exists and that the credentials allow writing."
            ) from exc

    def put(self, key: str, data: Data) -> None:
        target = self._path(key)
        with self._saving(key):
            if not self._has_folders:
                self._write(target, data)
                return
            folder, _, name = target.rpartition("/")
            temporary = f"{folder}/.{name[:100]}.{uuid.uuid4().hex}.tmp"
            self._filesystem.create_dir(folder, recursive=True)
            self._write(temporary, data)
            self._filesystem.move(temporary, target)

    def put_if_absent(self, key: str, data: Data) -> bool:
        if self._exists(key):
            return False
        self.put(key, data)
        return self.get(key) == b"".join(buffers(data))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._loading(key), self._filesystem.open_input_file(self._path(key)) as file:
            if start:
                file.seek(min(start, file.size()))  # pyarrow can't read behind the end
            content: bytes = file.read() if length is None else file.read(length)
            return content

    def list(self, folder: str) -> Iterator[Entry]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        try:
            with self._loading(folder):
                infos = self._filesystem.get_file_info(selector)
        except DataLoadError as exc:
            if isinstance(exc.__cause__, NotADirectoryError):
                return  # it is an object
            raise
        prefix = len(self._root) + 1 if self._root else 0
        for info in infos:
            if info.type == FileType.File and not info.base_name.startswith("."):
                yield Entry(info.path[prefix:], info.size)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._saving(key), suppress(FileNotFoundError):
                self._filesystem.delete_file(self._path(key))

    def delete_folder(self, folder: str) -> None:
        with self._saving(folder), suppress(FileNotFoundError):
            self._filesystem.delete_dir(self._path(folder))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if self._root else key

    def _exists(self, key: str) -> bool:
        from pyarrow.fs import FileType

        with self._loading(key):
            found: bool = self._filesystem.get_file_info(self._path(key)).type != FileType.NotFound
        return found

    def _write(self, path: str, data: Data) -> None:
        # One buffer: an exception between two writes would leave the first under the right name.
        # And no compression, which pyarrow would else choose by the name.
        content = b"".join(buffers(data))
        with self._filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(content)

    @contextmanager
    def _saving(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise DataSaveError(f"Can't write {key!r}: {exc}.", key=key) from exc

    @contextmanager
    def _loading(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise KeyNotFoundError(key) from None
        except OSError as exc:
            raise DataLoadError(f"Can't read {key!r}: {exc}.", key=key) from exc
