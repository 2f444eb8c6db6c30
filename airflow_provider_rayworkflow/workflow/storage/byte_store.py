"""The one way to bytes: a small interface that every back end implements.

Keys are ``/``-separated relative paths made by :mod:`.keys`, of characters that every store takes
as they are; nothing else makes keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_rayworkflow.workflow.exceptions import StorageError

#: What can be written: one buffer, or several that are written one after the other.
Data = bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]


@dataclass(slots=True, eq=False)
class Put:
    """One write of several, and what became of it.

    :ivar must_be_new: leave an earlier object as it is.
    :ivar is_new: False if that was so.
    :ivar error: why it failed.
    """

    key: str
    data: Data
    must_be_new: bool = False
    is_new: bool = True
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing.

    :ivar problem: why a folder can't be listed, whose key this is, with a ``/`` at its end: the
        listing goes on without it. An object has none.
    """

    key: str
    size: int
    problem: StorageError | None = None


class ByteStore(Protocol):
    """Bytes by key. Calls block; every method may be called from several threads at once.

    A ``put`` is atomic (a reader sees the old object or the new one, whole) and durable when it
    returns. Errors are :class:`StorageError`.
    """

    @property
    def uri(self) -> str:
        """What :func:`open_store` takes to open the same storage elsewhere."""

    @property
    def weakness(self) -> str:
        """What :meth:`put_if_absent` does not keep here, for people; ``""`` for nothing.

        Known once :meth:`check_writable` has been called.
        """

    def check_writable(self) -> None:
        """Raise :class:`DataSaveError` with the reason if nothing can be written."""

    def put(self, key: str, data: Data) -> None:
        """Write the object, in place of an earlier one."""

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Write the object unless there is one.

        Of two racing callers exactly one gets True, but for what :attr:`weakness` says.
        """

    @property
    def together(self) -> int:
        """How many objects :meth:`put_all` is best given at once; 1 where that gains nothing."""

    def put_all(self, puts: Sequence[Put]) -> None:
        """Write several objects, each as by :meth:`put` or :meth:`put_if_absent`.

        Each one fails by itself, and has its error; this raises none. None is tried again here, so
        that the others need not wait.
        """

    @property
    def reads_at_once(self) -> int:
        """How many objects are best read at the same time; 1 where that gains nothing."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a range of it.

        :raises KeyNotFoundError: when there is no such object.
        """

    def copy(self, source: str, target: str) -> None:
        """Let the target hold what the source does, as by a read and a :meth:`put`.

        Where the store can, the bytes don't pass through this process, or are not even copied.

        :raises KeyNotFoundError: when there is no such source.
        """

    def list(self, folder: str) -> Iterator[Entry]:
        """All objects below a folder, in no particular order; nothing if it does not exist.

        A folder in it that can't be listed is an :class:`Entry` with a problem.

        :raises DataLoadError: when the folder itself can't be listed.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that does not exist is no error."""

    def delete_folder(self, folder: str) -> None:
        """Delete all objects below a folder; none is no error."""


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
