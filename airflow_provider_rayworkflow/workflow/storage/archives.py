"""Folders of code as archives in the storage: written once, kept as long as a workflow needs them.

An archive is a zip under the SHA-256 of its bytes, so what a reader gets is what was meant, or an
error. The same files make the same bytes wherever the same zlib compresses them: names are sorted,
times and owners are left out.

A workflow *uses* an archive from before its submission, or its claim, until it is deleted or pruned. Of each use there
are two small objects: one among the uses of the archive, and an empty one in the workflow's own folder
that says where to look at the end. The last use that goes takes the archive along.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    WorkflowError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

#: How much an archive may hold, unpacked, in bytes: it is held in memory while it is made and read.
MAX_ARCHIVE_BYTES = 256 * 1024 * 1024
#: How many files an archive may hold.
MAX_ARCHIVE_FILES = 50_000

# What differs from machine to machine, or is of no use where tasks run.
_LEFT_OUT_FOLDERS = frozenset({"__pycache__", ".git"})
_LEFT_OUT_ENDINGS = (".pyc", ".pyo")

_TIME = (1980, 1, 1, 0, 0, 0)  # the first one that a zip can hold
_ON_UNIX = 3
_SHOWN = 5


class ArchiveError(WorkflowError, ValueError):
    """A folder or a file that can't be made an archive, or an archive that can't be unpacked. The message has the remedy."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip.

    :ivar sha256: of the bytes, as 64 hex digits.
    """

    sha256: str
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Archive:
        return cls(hashlib.sha256(data).hexdigest(), data)


# ---- packing


def pack(
    given: Path,
    *,
    with_parent: bool = False,
    is_excluded: Callable[[str], bool] = lambda _: False,
    most_bytes: int = MAX_ARCHIVE_BYTES,
) -> Archive:
    """Make an archive of a single file, or of a folder without what is of one machine.

    That is ``__pycache__``, ``.git``, compiled files, and virtual environments in the folder.
    A symbolic link to a file in the folder is stored as that file; one that leads nowhere is left out.

    :param with_parent: names in a folder begin with its own, as a package is imported.
    :param is_excluded: called with each path relative to the folder, with ``/`` between its parts and at
        the end of a folder's.
    :param most_bytes: how much it may hold, unpacked.
    :raises ArchiveError: when a file can't be read, it is too large, or a link leads out of the folder or to
        another folder.
    """
    try:
        if given.is_file():
            _check_size(given, given.parent, [given], most_bytes)
            return _pack([(given.name, given)])
        root = given.resolve(strict=True)
        found = list(_walk(root, root, is_excluded))
        _check_size(given, root, found, most_bytes)
        prefix = f"{given.absolute().name}/" if with_parent else ""
        return _pack([(prefix + _relative(path, root), path) for path in found])
    except OSError as exc:
        raise ArchiveError(f"{str(given)!r} can't be packed: {exc}") from exc


def _walk(folder: Path, root: Path, is_excluded: Callable[[str], bool]) -> Iterator[Path]:
    """Files below a folder."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        name = _relative(path, root)
        is_folder = entry.is_dir(follow_symlinks=False)
        if _is_left_out(entry) or is_excluded(f"{name}/" if is_folder else name):
            continue
        if entry.is_symlink() and not _is_link_to_own_file(path, root):
            continue
        if is_folder:
            yield from _walk(path, root, is_excluded)
        elif entry.is_file():
            yield path


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    if os.path.isdir(entry.path):  # or a link to one
        return entry.name in _LEFT_OUT_FOLDERS or is_virtual_environment(entry.path)
    return entry.name.endswith(_LEFT_OUT_ENDINGS)


def is_virtual_environment(folder: str) -> bool:
    """True for the folder of a virtual environment of Python, whatever its name."""
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _is_link_to_own_file(link: Path, root: Path) -> bool:
    """True for a link to a file in the folder; False for one that leads nowhere.

    :raises ArchiveError: for any other one.
    """
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False  # nothing there, or a circle
    if target.is_file() and target.is_relative_to(root):
        return True
    where = "another folder" if target.is_relative_to(root) else "somewhere outside of it"
    raise ArchiveError(
        f"The folder {str(root)!r} can't be packed: {_relative(link, root)!r} is a symbolic link to "
        f"{where} ({str(target)!r}). Put a copy in its place, or name it in the runtime_env's 'excludes'."
    )


def _check_size(given: Path, root: Path, files: list[Path], most_bytes: int) -> None:
    if len(files) > MAX_ARCHIVE_FILES:
        raise ArchiveError(
            f"{str(given)!r} has {len(files):,} files, and an archive of code may have "
            f"{MAX_ARCHIVE_FILES:,}. {_WAY_OUT}"
        )
    sizes: dict[str, int] = {}
    for path in files:
        top = path.relative_to(root).parts[0]
        sizes[top] = sizes.get(top, 0) + path.stat().st_size
    total = sum(sizes.values())
    if total > most_bytes:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_SHOWN]
        shown = ", ".join(f"{name!r} {_mb(sizes[name])}" for name in largest)
        raise ArchiveError(
            f"{str(given)!r} has {_mb(total)}, and an archive of code may have {_mb(most_bytes)}. "
            f"The largest in it: {shown}. {_WAY_OUT}"
        )


_WAY_OUT = (
    "Name what tasks don't need in the runtime_env's 'excludes' (patterns as in .gitignore), point "
    "working_dir at a smaller folder, or keep data in the storage and libraries in the cluster's image."
)


def _mb(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _pack(files: list[tuple[str, Path]]) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in sorted(files):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = _ON_UNIX
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            info.external_attr = (stat.S_IFREG | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return Archive.of(buffer.getvalue())


# ---- unpacking


def check_members(data: bytes, *, most_bytes: int = MAX_ARCHIVE_BYTES) -> list[zipfile.ZipInfo]:
    """The members of a zip that can be unpacked into a folder, and nowhere else.

    :param most_bytes: how much it may hold, unpacked.
    :raises ArchiveError: when it is no zip, is too large unpacked, or has a member that is a link, that is
        there twice, or whose name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as exc:
        raise ArchiveError(f"It is no zip: {exc}") from exc
    size = sum(one.file_size for one in members)
    if len(members) > MAX_ARCHIVE_FILES or size > most_bytes:
        raise ArchiveError(f"Unpacked, it has more than {_mb(most_bytes)} or too many files.")
    names = set[str]()
    for member in members:
        name, mode = member.filename.rstrip("/"), member.external_attr >> 16
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
            raise ArchiveError(f"The name {member.filename!r:.300} in it leads out of its folder.")
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{member.filename!r:.300} in it is a link or no plain file.")
        if str(PurePosixPath(name)) in names:
            raise ArchiveError(f"{member.filename!r:.300} is in it twice.")
        names.add(str(PurePosixPath(name)))
    return members


def unpack(data: bytes, folder: Path, *, most_bytes: int = MAX_ARCHIVE_BYTES) -> None:
    """Unpack an archive into a folder that is empty and that others can't write.

    :param most_bytes: how much it may hold, unpacked.
    :raises ArchiveError: as :func:`check_members`, before anything is written; or when a file is damaged.
    :raises OSError: when a file can't be written.
    """
    members = check_members(data, most_bytes=most_bytes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in members:
            path = folder.joinpath(*PurePosixPath(member.filename).parts)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = archive.read(member)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as exc:
                raise ArchiveError(f"{member.filename!r:.300} in it is damaged: {exc}") from exc
            with open(path, "xb") as file:
                file.write(content)
            path.chmod(0o755 if member.external_attr >> 16 & stat.S_IXUSR else 0o644)


# ---- in the storage


class ArchiveStore:
    """Archives, and which workflows use them, on one storage.

    :param signing: the keys of the uses' documents; None for those of the environment. An archive itself
        needs no signature: its name, which a signed document has, is its checksum.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self._store = store
        self._signing = signing

    def add(self, archive: Archive) -> None:
        """Store an archive, unless it is there; a read, and a write if it is new."""
        key = keys.archive_key(archive.sha256)
        try:
            self._store.get(key, 0, 1)
        except KeyNotFoundError:
            self._store.put(key, archive.data)

    def read(self, sha256: str) -> Archive:
        """Read an archive.

        :raises KeyNotFoundError: when there is no such archive.
        :raises CorruptedDataError: when its bytes are not those that its name says.
        """
        key = keys.archive_key(sha256)
        archive = Archive.of(self._store.get(key))
        if archive.sha256 != sha256:
            raise CorruptedDataError(key, "its content is not that of its name; delete it")
        return archive

    def use(self, workflow_id: str, archive: Archive, *, now: float) -> None:
        """Let a workflow use an archive: three small requests, and a write if the archive is new.

        In this order: a process that removes the archive at the same moment sees the use, or this call
        sees that the archive is gone.

        :param now: seconds since the epoch.
        """
        self._write_use(workflow_id, archive.sha256, now=now)
        self.add(archive)

    def keep(self, workflow_id: str, sha256s: Iterable[str], *, now: float) -> None:
        """Let a workflow use archives that another one uses, which calls this: two small writes for each."""
        for sha256 in sha256s:
            self._write_use(workflow_id, sha256, now=now)

    def used_by(self, workflow_id: str) -> list[str]:
        """The SHA-256 of each archive that a workflow uses; one listing."""
        return sorted(
            sha256
            for entry in self._store.list(keys.workflow_folder(workflow_id))
            if (sha256 := keys.parse_archive_mark(entry.key)) is not None
        )

    def share(self, workflow_id: str, new_workflow_id: str, *, now: float) -> None:
        """Let a fork use what the workflow uses. Before its claim: then it is deleted as a workflow is."""
        self.keep(new_workflow_id, self.used_by(workflow_id), now=now)

    def release(self, workflow_id: str) -> list[str]:
        """End all uses by a workflow, and delete the archives that no other one uses.

        Called again after a crash, it does what is left: the workflow's own marks go last.

        :returns: the SHA-256 of each archive that was deleted.
        """
        found = self.used_by(workflow_id)
        removed = [sha256 for sha256 in found if self._end_use(workflow_id, sha256)]
        self._store.delete([keys.archive_mark_key(workflow_id, sha256) for sha256 in found])
        return removed

    def release_orphaned(self, is_unknown: Callable[[str], bool], *, before: float) -> list[str]:
        """End the uses by workflows that never came to be, and were to be before a time.

        :param is_unknown: True for the segment (:func:`.keys.quote_id`) of a workflow that is not stored.
        :param before: seconds since the epoch.
        :returns: the SHA-256 of each archive that was deleted.
        """
        removed = []
        for entry in list(self._store.list(keys.ARCHIVE_USES)):
            use = keys.parse_archive_use(entry.key)
            if use is None or not is_unknown(use[1]):
                continue
            try:
                body = load_line(
                    entry.key, "archive use", self._store.get(entry.key), signing=self._signing
                )
                with understanding(entry.key, "archive use"):
                    workflow_id, since = str(body["workflow_id"]), float(body["since"])
            except (KeyNotFoundError, DataLoadError):
                continue  # ended since; or damaged, and its archive stays
            if since < before and keys.quote_id(workflow_id) == use[1]:
                removed += self.release(workflow_id)
        return removed

    def _write_use(self, workflow_id: str, sha256: str, *, now: float) -> None:
        self._store.put(keys.archive_mark_key(workflow_id, sha256), b"")
        key = keys.archive_use_key(sha256, workflow_id)
        body = {"workflow_id": workflow_id, "since": now}
        self._store.put(key, dump_document(key, "archive use", body, signing=self._signing))

    def _end_use(self, workflow_id: str, sha256: str) -> bool:
        """True if the archive went with it."""
        self._store.delete([keys.archive_use_key(sha256, workflow_id)])
        key = keys.archive_key(sha256)
        if self._is_used(sha256):
            return False
        try:
            data = self._store.get(key)
        except KeyNotFoundError:
            return False
        self._store.delete([key])
        if self._is_used(sha256):  # since the first look; it may have seen the archive
            self._store.put(key, data)
            return False
        return True

    def _is_used(self, sha256: str) -> bool:
        return any(True for _ in self._store.list(keys.archive_uses_folder(sha256)))
