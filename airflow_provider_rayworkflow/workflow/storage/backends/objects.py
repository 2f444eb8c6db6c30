"""Bytes on object stores (S3 and what speaks like it, Azure, Google), by obstore.

One request a call. Unlike ``pyarrow.fs`` it can create an object only if it is absent, which is how
a workflow gets one owner.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.backends.weak_create import create_by_looking
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    Data,
    Entry,
    Put,
    buffers,
    put_each,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

_PART_BYTES = 8 * 1024 * 1024  # larger objects are uploaded in parts of this size
_DELETED_AT_ONCE = 1000  # as many as S3 takes in one request


class ObjectStore:
    """A :class:`ByteStore` below one prefix of a bucket.

    :param connect: makes the client, in each process that uses the store; told whether it may
        delete several objects by one request.
    :param location: what opens the same storage elsewhere.
    :param settle_s: see :func:`create_by_looking`, which is used where the server
        does not do as it is told.
    """

    together = 1  # each one is a request
    reads_at_once = 16

    def __init__(
        self, connect: Callable[[bool], Client], root: str, *, location: str, settle_s: float = 1.0
    ) -> None:
        self._connect = connect
        self._prefix = f"{root.strip('/')}/" if root.strip("/") else ""
        self._location = location
        self._settle_s = settle_s
        self._client: Client | None = None
        self._creates: bool | None = None  # whether conditional writes work; None: not known yet
        self._deletes_many = True

    @property
    def uri(self) -> str:
        return self._location

    @property
    def weakness(self) -> str:
        if self._creates is not False:
            return ""
        return (
            "The server ignores or refuses conditional writes (If-None-Match). Two clusters that "
            "claim the same workflow at the same moment might both run it: let one cluster at a "
            "time use this storage."
        )

    def check_writable(self) -> None:
        try:
            self._creates = self._probe()
        except StorageError as exc:
            raise DataSaveError(
                f"The workflow storage can't be written: {exc} Check that the bucket exists and "
                "that the credentials allow reading, writing, listing and deleting.",
                is_transient=exc.is_transient,
            ) from exc

    def _probe(self) -> bool:
        """True if of two creations of one object the second one fails, as it must."""
        key = keys.probe_key(uuid.uuid4().hex)
        try:
            first = self._create(key, b"")
        except StorageError as exc:
            if exc.is_transient:
                raise
            self.put(key, b"")  # perhaps it is the condition that the server does not take
            first = False
        try:
            return first and not self._create(key, b"")
        except StorageError as exc:
            if exc.is_transient:
                raise
            return False
        finally:
            self.delete([key])

    def put(self, key: str, data: Data) -> None:
        import obstore

        with self._saving(key):
            content = _content(data)
            if isinstance(content, bytes):
                obstore.put(self._store, self._path(key), content, use_multipart=False)
            else:
                obstore.put(self._store, self._path(key), content, chunk_size=_PART_BYTES)

    def put_if_absent(self, key: str, data: Data) -> bool:
        if self._creates is None:
            self.check_writable()
        if self._creates:
            return self._create(key, data)
        return create_by_looking(self, self._exists, key, data, settle_s=self._settle_s)

    def _create(self, key: str, data: Data) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._saving(key):
            content = b"".join(buffers(data))
            try:
                obstore.put(self._store, self._path(key), content, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

    def _exists(self, key: str) -> bool:
        import obstore

        try:
            with self._loading(key):
                obstore.head(self._store, self._path(key))
        except KeyNotFoundError:
            return False
        return True

    def put_all(self, puts: Sequence[Put]) -> None:
        put_each(self, puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        import obstore

        if length == 0:
            return b""
        with self._loading(key):
            try:
                path, store = self._path(key), self._store
                if length is not None:
                    return bytes(obstore.get_range(store, path, start=start, length=length))
                if start:
                    found = obstore.get(store, path, options={"range": {"offset": start}})
                else:
                    found = obstore.get(store, path)
                return bytes(found.bytes())
            except obstore.exceptions.BaseError as exc:
                if _status_of(exc) == 416 or "Wanted range starting" in str(exc):
                    return b""  # the range lies behind the end
                raise

    def copy(self, source: str, target: str) -> None:
        import obstore

        try:
            with self._saving(target):
                obstore.copy(self._store, self._path(source), self._path(target))
        except DataSaveError as exc:
            if exc.is_transient:
                raise
            # There is no source, or the server does not copy: S3 refuses more than 5 GB.
            self.put(target, self.get(source))

    def list(self, folder: str) -> Iterator[Entry]:
        import obstore

        skip = len(self._prefix)
        with self._loading(folder):
            pages = obstore.list(self._store, prefix=f"{self._prefix}{folder}/", chunk_size=1000)
            for page in pages:
                for meta in page:
                    yield Entry(meta["path"][skip:], meta["size"])

    def delete(self, keys: Iterable[str]) -> None:
        remaining = iter(keys)
        while batch := tuple(islice(remaining, _DELETED_AT_ONCE)):
            self._delete(batch)

    def _delete(self, keys: Sequence[str]) -> None:
        import obstore

        if len(keys) > 1 and self._deletes_many:
            try:
                with self._saving(keys[0]):
                    obstore.delete(self._store, [self._path(key) for key in keys])
                return
            except DataSaveError as exc:
                if exc.is_transient:
                    raise
                if not isinstance(exc.__cause__, FileNotFoundError):  # else one was not there
                    self._deletes_many = False
                    self._client = None
        for key in keys:
            with self._saving(key):
                try:
                    obstore.delete(self._store, self._path(key))
                except FileNotFoundError as exc:
                    if has_no_bucket(exc):
                        raise

    def delete_folder(self, folder: str) -> None:
        self.delete([entry.key for entry in self.list(folder)])

    def _path(self, key: str) -> str:
        return self._prefix + key

    @property
    def _store(self) -> Client:
        _check_not_forked()
        if self._client is None:
            self._client = self._connect(self._deletes_many)
        return self._client

    @contextmanager
    def _saving(self, key: str) -> Iterator[None]:
        try:
            yield
        except _errors() as exc:
            raise DataSaveError(
                f"Can't write {key!r}: {_reason(exc)}.", key=key, is_transient=_is_transient(exc)
            ) from exc

    @contextmanager
    def _loading(self, key: str) -> Iterator[None]:
        try:
            yield
        except _errors() as exc:
            if isinstance(exc, FileNotFoundError) and not has_no_bucket(exc):
                raise KeyNotFoundError(key) from None
            raise DataLoadError(
                f"Can't read {key!r}: {_reason(exc)}.", key=key, is_transient=_is_transient(exc)
            ) from exc


_first_pid = 0


def _check_not_forked() -> None:
    # Its threads are not copied by a fork: a call in the child would wait for ever.
    global _first_pid
    _first_pid = _first_pid or os.getpid()
    if _first_pid != os.getpid():
        raise DataLoadError(
            "This process was forked from one that had used the object store already, and the "
            "client can't go on after a fork. Start it with 'spawn', or open the storage only "
            "after the fork."
        )


def _content(data: Data) -> bytes | Iterator[memoryview]:
    """One piece if it is small; else pieces that are uploaded one after the other, not copied."""
    views = [memoryview(part).cast("B") for part in buffers(data) if len(part)]
    if sum(view.nbytes for view in views) <= _PART_BYTES:
        return b"".join(views)
    return (
        view[start : start + _PART_BYTES]
        for view in views
        for start in range(0, view.nbytes, _PART_BYTES)
    )


def _errors() -> tuple[type[Exception], ...]:
    from obstore.exceptions import BaseError

    return BaseError, OSError


_STATUS = re.compile(r"status code: (\d{3})")
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_NO_ANSWER = re.compile(
    "error sending request|timed? ?out|connection|error decoding response", re.I
)


def _status_of(exc: Exception) -> int:
    found = _STATUS.search(str(exc))
    return int(found[1]) if found else 0


def _is_transient(exc: Exception) -> bool:
    status = _status_of(exc)
    if status:
        return status in (408, 429) or (status >= 500 and status not in (501, 505, 507))
    return not isinstance(exc, FileNotFoundError) and bool(_NO_ANSWER.search(str(exc)))


def has_no_bucket(exc: Exception) -> bool:
    return bool(_NO_BUCKET.search(str(exc)))


def _reason(exc: Exception) -> str:
    """What the server said, without addresses, which may be signed, and what it says to machines."""
    text = str(exc).partition("Debug source:")[0]
    code = re.search(r"<Code>([^<]{1,60})</Code>", text)
    message = re.search(r"<Message>([^<\n]{1,200})", text)
    if code:
        said = f"{code[1]}: {message[1].strip().rstrip('.')}" if message else code[1]
        return f"the server said {_status_of(exc)} {said}"
    return re.sub(r"\?\S*", "", " ".join(text.split()))[:300].rstrip(".")
