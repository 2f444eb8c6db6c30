"""The files of a local folder as pieces of bytes, and back; no more than one piece is in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview


class FileEntry(NamedTuple):
    """One file of a folder.

    :ivar path: below the folder, with ``/``.
    :ivar size: in bytes.
    """

    path: str
    size: int
    is_executable: bool = False


def files_of(folder: Path) -> list[FileEntry]:
    """All files below a folder, in the order of their paths; a link to one of them counts as a file.

    :raises ValueError: for links that lead elsewhere or to folders, for what is no file, and for names
        that are no text.
    """
    root = os.path.realpath(folder)
    found = []
    for current, folders, names in os.walk(root, onerror=_raise):
        for name in (*folders, *names):
            path = os.path.join(current, name)
            if (entry := _entry(root, path)) is not None:
                found.append(entry)
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _entry(root: str, path: str) -> FileEntry | None:
    """What is stored of a path; None for a folder."""
    shown = os.path.relpath(path, root)
    is_link = os.path.islink(path)
    target = os.path.realpath(path)
    if is_link and not target.startswith(f"{root}{os.sep}"):
        raise ValueError(
            f"The link {shown!r} leads out of the folder that is saved: copy its file."
        )
    try:
        found = os.stat(target)
    except FileNotFoundError:
        raise ValueError(f"The link {shown!r} leads to nothing: remove it.") from None
    if stat.S_ISDIR(found.st_mode) and not is_link:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{shown!r} is no file, so it can't be saved: remove it.")
    try:
        shown.encode()
    except UnicodeEncodeError:
        raise ValueError(f"The file name {shown!r} is no text: rename it.") from None
    return FileEntry(shown.replace(os.sep, "/"), found.st_size, bool(found.st_mode & stat.S_IXUSR))


def pieces_of(folder: Path, files: Iterable[FileEntry], piece_bytes: int) -> Iterator[Buffer]:
    """The bytes of files one after the other, in pieces of the same size but for the last one.

    Each piece is good until the next one is asked for.

    :raises ValueError: when a file has become shorter than its entry says.
    """
    piece = memoryview(bytearray(piece_bytes))
    filled = 0
    for entry in files:
        left = entry.size
        with open(folder / entry.path, "rb", buffering=0) as file:
            while left:
                read = file.readinto(piece[filled : filled + left])
                if not read:
                    raise ValueError(f"The file {entry.path!r} was changed while it was saved.")
                left -= read
                filled += read
                if filled == piece_bytes:
                    yield piece
                    filled = 0
    if filled:
        yield piece[:filled]


def write_files(folder: Path, files: Sequence[FileEntry], pieces: Iterable[Buffer]) -> None:
    """Make files below an empty folder of what :func:`pieces_of` gave.

    :raises ValueError: when an entry leads out of the folder, or the pieces have other bytes than the
        files need.
    """
    content = _Content(pieces)
    for entry in files:
        path = folder / checked_path(entry.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o700 if entry.is_executable else 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, mode), "wb", buffering=0) as file:
            for part in content.take(entry.size):
                while part:
                    part = part[file.write(part) :]
    content.check_empty()


def checked_path(path: str) -> PurePosixPath:
    """A path of an entry, if it is one below its folder.

    :raises ValueError: if not.
    """
    checked = PurePosixPath(path)
    is_below = checked.parts and not checked.is_absolute() and ".." not in checked.parts
    if not is_below or str(checked) != path or "\0" in path:
        raise ValueError(f"{path!r:.200} is no path below a folder")
    return checked


class _Content:
    """Bytes that come in pieces."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next bytes, so many in all."""
        while size:
            if not self._rest:
                self._rest = self._next()
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part

    def check_empty(self) -> None:
        with suppress(ValueError):
            self._rest = self._rest or self._next()
        if self._rest:
            raise ValueError("there are more bytes than the files have")

    def _next(self) -> memoryview:
        for piece in self._pieces:
            return memoryview(piece)
        raise ValueError("bytes of the files are missing")
