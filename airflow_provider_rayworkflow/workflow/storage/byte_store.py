"""The one way to bytes: a small interface that every back end implements.

Keys are ``/``-separated relative paths made by :mod:`.keys`, of characters that every store takes
as they are; nothing else makes keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_rayworkflow.workflow.exceptions import StorageError

#: The bytes of an object: one buffer, or several that are written one after the other.
Data = bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]


@dataclass(slots=True, eq=False)
class Put:
    """One write of several, and what became of it.

    :ivar must_be_new: leave an earlier object as it is.
    :ivar is_new: False if there was one, which was left.
    :ivar error: why the write failed, None where it worked.
    """

    key: str
    data: Data
    must_be_new: bool = False
    is_new: bool = True
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing.

    :ivar size: of the object, in bytes; 0 for a folder with a problem.
    :ivar problem: why a folder can't be listed, whose key this is, with a ``/`` at its end: the
        listing goes on without it. None for an object.
    """

    key: str
    size: int
    problem: StorageError | None = None


class ByteStore(Protocol):
    """Bytes by key. Calls block; every method may be called from several threads at once.

    A ``put`` is atomic (a reader sees the old object or the new one, whole) and durable when it
    returns. Errors are :class:`StorageError`; ``is_transient`` is True where the same call may work a
    moment later, which :class:`RetryingStore` tries.
    """

    @property
    def uri(self) -> str:
        """The location that opens the same storage elsewhere: a URI or a path (:func:`open_store`)."""

    @property
    def weakness(self) -> str:
        """Sentences for people about the races that :meth:`put_if_absent` loses; ``""`` for none.

        Known once :meth:`check_writable` has been called.
        """

    def check_writable(self) -> None:
        """Write a trial object and delete it again.

        :raises DataSaveError: with the reason, when that fails.
        """

    def put(self, key: str, data: Data) -> None:
        """Write the object, in place of an earlier one.

        :raises DataSaveError: when it can't be written; an earlier object may be there still.
        """

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Write the object unless one exists under the key.

        Of two racing callers exactly one gets True, but for what :attr:`weakness` says.

        :returns: True if this call wrote it, False if there was one before.
        :raises DataSaveError: when it can't be written.
        """

    @property
    def together(self) -> int:
        """How many objects :meth:`put_all` is best given at once; 1 where that gains nothing."""

    def put_all(self, puts: Sequence[Put]) -> None:
        """Write several objects, each as by :meth:`put` or :meth:`put_if_absent`.

        Each one fails by itself, and has its error in :attr:`Put.error`; the call itself raises
        nothing. A failed write is not repeated here, so that the others need not wait.
        """

    @property
    def reads_at_once(self) -> int:
        """How many objects are best read at the same time; 1 where that gains nothing."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of its bytes.

        :param start: offset of the first byte.
        :param length: how many bytes; None: all up to the end.
        :returns: the bytes; fewer than ``length`` where the object ends sooner, ``b""`` behind it.
        :raises KeyNotFoundError: when there is no such object.
        :raises DataLoadError: when it can't be read.
        """

    def copy(self, source: str, target: str) -> None:
        """Let the target hold the bytes of the source, as by a :meth:`get` and a :meth:`put`.

        Where the store can, the bytes don't pass through this process, or are not even copied.

        :raises KeyNotFoundError: when there is no such source.
        :raises StorageError: when the source can't be read, or the target can't be written.
        """

    def list(self, folder: str) -> Iterator[Entry]:
        """All objects below a folder, at any depth and in any order; a missing folder has none.

        A folder in it that can't be listed is an :class:`Entry` with a problem.

        :param folder: a key without a ``/`` at its end.
        :raises DataLoadError: when the folder itself can't be listed; maybe while the caller iterates.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys without an object are skipped.

        :raises DataSaveError: when one can't be deleted; some of the others are deleted then.
        """

    def delete_folder(self, folder: str) -> None:
        """Delete all objects below a folder, which may be missing.

        :raises StorageError: when it can't be listed, or one object can't be deleted.
        """


def put_each(store: ByteStore, puts: Sequence[Put]) -> None:
    """:meth:`ByteStore.put_all` for a store that can do no better than one after the other."""
    for put in puts:
        try:
            if put.must_be_new:
                put.is_new = store.put_if_absent(put.key, put.data)
            else:
                store.put(put.key, put.data)
        except BaseException as exc:
            put.error = exc


def buffers(data: Data) -> Sequence[bytes | bytearray | memoryview]:
    """The data as a sequence of buffers."""
    return (data,) if isinstance(data, (bytes, bytearray, memoryview)) else data
