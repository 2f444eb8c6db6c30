"""Sorts more items than a process should hold: in a temporary file, which costs about what the index takes."""

from __future__ import annotations

import heapq
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import IO, Any, Self

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError

#: A key, and a value of JSON.
Item = tuple[str, Any]

# So many items are read from each sorted run at a time.
_BLOCK = 100
_key_of = itemgetter(0)


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    length: int


class DiskSort:
    """Takes items in any order, and gives them by key, as often as it is asked.

    What it holds is ``most`` items, and a hundred for each time that so many have come. A context manager:
    its end deletes the file, which has no name.

    :param most: how many items are held; with fewer there is no file.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: list[Item] = []
        self._runs: list[list[_Block]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, key: str, value: Any) -> None:
        """Take an item; of equal keys the order is not defined.

        :raises DataSaveError: when the temporary file can't be written.
        """
        self._held.append((key, value))
        if len(self._held) >= self._most:
            self._held.sort(key=_key_of)
            starts = range(0, len(self._held), _BLOCK)
            self._runs.append([self._write(self._held[at : at + _BLOCK]) for at in starts])
            self._held.clear()

    def __iter__(self) -> Iterator[Item]:
        runs = [self._read(run) for run in self._runs]
        return heapq.merge(*runs, sorted(self._held, key=_key_of), key=_key_of)

    def _write(self, items: Sequence[Item]) -> _Block:
        with _telling_the_folder():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
            packed = zlib.compress(json.dumps(items).encode(), 1)
            start = self._file.seek(0, 2)
            self._file.write(packed)
        return _Block(start, len(packed))

    def _read(self, run: Sequence[_Block]) -> Iterator[Item]:
        for block in run:
            for item in json.loads(zlib.decompress(self._packed(block))):
                yield item[0], item[1]

    def _packed(self, block: _Block) -> bytes:
        assert self._file is not None
        with _telling_the_folder():
            self._file.seek(block.start)
            return self._file.read(block.length)


@contextmanager
def _telling_the_folder() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataSaveError(
            f"A temporary file can't be used: {exc}. Give TMPDIR a folder with room, where the index is made."
        ) from exc
