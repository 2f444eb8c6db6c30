"""Bytes on whatever ``pyarrow.fs`` reaches: S3, GCS, Azure, HDFS, fsspec file systems."""

from __future__ import annotations

import errno
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.backends.objects import has_no_bucket
from airflow_provider_rayworkflow.workflow.storage.backends.weak_create import create_by_looking
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    Data,
    Entry,
    Put,
    buffers,
    put_each,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: Stores whose writes are atomic and which have no folders to be made, as pyarrow and fsspec say.
_OBJECT_STORES = frozenset({"s3", "s3a", "gcs", "gs", "abfs", "az"})


class ArrowStore:
    """A :class:`ByteStore` below one folder of a pyarrow file system.

    An object store's writes replace atomically; elsewhere a temporary file is renamed. pyarrow
    has no atomic create-if-absent: see :func:`create_by_looking`.

    :param location: what opens the same storage elsewhere.
    :param settle_s: see there.
    """

    together = 1
    reads_at_once = 8

    def __init__(
        self, filesystem: FileSystem, root: str, *, location: str, settle_s: float = 1.0
    ) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._location = location
        self._settle_s = settle_s
        names = _names(filesystem)
        self._has_folders = not _OBJECT_STORES.intersection(names)
        handler: Any = getattr(filesystem, "handler", None)
        self._s3fs = handler.fs if handler is not None and "s3" in names else None

    @property
    def uri(self) -> str:
        return self._location

    @property
    def weakness(self) -> str:
        kind = self._filesystem.type_name
        whose, remedy = "pyarrow's", " (For S3, Azure and Google, install obstore on the cluster.)"
        if kind.startswith("py::"):
            whose, kind, remedy = "An", "fsspec", ""
        return (
            f"{whose} {kind} file system can't create a file only if it is absent. Two clusters "
            "that claim the same workflow at the same moment might both run it: let one cluster at "
            f"a time use this storage.{remedy}"
        )

    def check_writable(self) -> None:
        key, content = keys.probe_key(uuid.uuid4().hex), b"what is written"
        try:
            self.put(key, content)
            found = self.get(key)
            self.delete([key])
        except StorageError as exc:
            raise DataSaveError(
                f"The workflow storage{self._name} can't be written: {exc} Check that it exists "
                "and that the credentials allow reading, writing, listing and deleting.",
                is_transient=exc.is_transient,
            ) from exc
        if found != content:
            raise DataSaveError(
                f"The workflow storage{self._name} gives back other bytes than were written: its "
                "server does not understand how pyarrow uploads. Use another server, or, for S3, "
                "Azure and Google, install obstore on the cluster."
            )

    @property
    def _name(self) -> str:
        # Where an object is given, its location is a pickle.
        return f" {self._root!r}" if self._root else ""

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
        return create_by_looking(self, self._exists, key, data, settle_s=self._settle_s)

    def put_all(self, puts: Sequence[Put]) -> None:
        put_each(self, puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        with self._loading(key):
            if not start:
                # Not as a file: of an object that is replaced meanwhile that would read nothing.
                with self._filesystem.open_input_stream(path, compression=None) as stream:
                    return bytes(stream.read(length))
            with self._filesystem.open_input_file(path) as file:
                if start >= file.size():
                    return b""  # pyarrow can't read behind the end
                file.seek(start)
                return bytes(file.read(length))

    def copy(self, source: str, target: str) -> None:
        if self._has_folders:
            self.put(target, self.get(source))  # pyarrow's own copy is not atomic there
            return
        try:
            with self._saving(target):
                self._filesystem.copy_file(self._path(source), self._path(target))
        except DataSaveError:
            self.put(target, self.get(source))

    def list(self, folder: str) -> Iterator[Entry]:
        prefix = len(self._root) + 1 if self._root else 0
        for path, size in self._files(folder):
            if not path.rpartition("/")[2].startswith("."):
                yield Entry(path[prefix:], size)

    def _files(self, folder: str) -> Sequence[tuple[str, int]]:
        """Path and size of all files below a folder."""
        from pyarrow.fs import FileSelector, FileType

        path = self._path(folder)
        if self._s3fs is not None:
            # Not by pyarrow: it asks first whether the folder is there, which costs a
            # request more, and takes a missing bucket for a missing folder.
            with self._loading(folder):
                found = self._s3fs.find(path, detail=True)
            files = [(name, info) for name, info in found.items() if name != path]
            return [(name, info["size"]) for name, info in files if info["type"] == "file"]
        selector = FileSelector(path, recursive=True, allow_not_found=True)
        try:
            with self._loading(folder):
                infos = self._filesystem.get_file_info(selector)
        except DataLoadError as exc:
            if isinstance(exc.__cause__, NotADirectoryError):
                return []  # it is an object
            raise
        return [(info.path, info.size) for info in infos if info.type == FileType.File]

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._saving(key), suppress(FileNotFoundError):
                self._filesystem.delete_file(self._path(key))

    def delete_folder(self, folder: str) -> None:
        if self._exists(folder):
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
        except Exception as exc:  # of fsspec's file systems: whatever their clients raise
            raise DataSaveError(
                f"Can't write {key!r}: {_reason(exc)}.", key=key, is_transient=_is_transient(exc)
            ) from exc

    @contextmanager
    def _loading(self, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # of fsspec's file systems: whatever their clients raise
            if isinstance(exc, FileNotFoundError) and not has_no_bucket(exc):
                raise KeyNotFoundError(key) from None
            raise DataLoadError(
                f"Can't read {key!r}: {_reason(exc)}.", key=key, is_transient=_is_transient(exc)
            ) from exc


def _names(filesystem: FileSystem) -> tuple[str, ...]:
    """What kind of file system it is, behind whatever stands around it."""
    base = getattr(filesystem, "base_fs", filesystem)
    inner: Any = getattr(getattr(base, "handler", None), "fs", None)
    while hasattr(inner, "fs"):  # fsspec's folder of another one
        inner = inner.fs
    protocol = getattr(inner, "protocol", base.type_name)
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _reason(exc: Exception) -> str:
    return str(exc).strip().rstrip(".") or type(exc).__name__


# What the SDKs below pyarrow call it; they have tried for some seconds themselves.
_NO_ANSWER = re.compile(
    "NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|timed out"
)
#: Errors of fsspec's clients (botocore's, aiohttp's, Azure's) that mean so, by parts of their names.
_NO_ANSWER_TYPES = re.compile("Connect|Timeout|ServiceRequest|ServiceResponse")


def _is_transient(exc: Exception) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError)):
        return True
    if isinstance(exc, OSError):
        return exc.errno == errno.EBUSY or bool(_NO_ANSWER.search(str(exc)))
    return bool(_NO_ANSWER_TYPES.search(type(exc).__name__))
