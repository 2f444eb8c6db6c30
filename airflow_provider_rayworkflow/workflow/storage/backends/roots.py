"""The folder that a local storage lies below, and ways into it that follow no link.

Other users may reach the same folders, so a path is no proof of a place: each call opens the root,
checks what it has opened, and goes on from that descriptor. A link below the root is refused
wherever it points.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

log = get_logger(__name__)

#: Where workflows are stored by default: good for a single machine and user only.
DEFAULT_ROOT = "/tmp/ray/workflow_data"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: to open a FIFO would wait for its other end.
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SHARED_FOLDER = 0o1777  # each user may add to it, and touch only what is their own


class UnsafeRootError(PermissionError):
    """Something stands where ours should be, and might be another user's. Its text is a sentence.

    :ivar why: what is wrong with it, as a part of a sentence.
    """

    def __init__(self, reason: str, *, why: str) -> None:
        super().__init__(errno.EACCES, reason)
        self.why = why


class Root:
    """One root folder, which need not exist.

    :param is_private: it is for this user alone: it must belong to this user, and only this user
        may write there. What is made below it only this user can read. Else modes go by the umask.
        By default that is so for :data:`DEFAULT_ROOT`, also where a caller names it.
    :ivar path: its absolute path.
    """

    def __init__(self, path: str, *, is_private: bool | None = None) -> None:
        self.path = path
        self.is_private = path == DEFAULT_ROOT if is_private is None else is_private
        self.file_mode, self.folder_mode = (0o600, 0o700) if self.is_private else (0o666, 0o777)
        self._is_known = False

    def opened(self) -> AbstractContextManager[int]:
        """A descriptor of the root.

        :raises FileNotFoundError: when there is no such folder.
        :raises UnsafeRootError: when it has to be private, and is not.
        """
        return closing(self._open())

    def folder(self, path: str) -> AbstractContextManager[int]:
        """A descriptor of a folder below the root.

        :raises FileNotFoundError: when there is no such folder.
        :raises NotADirectoryError: when it is something else.
        """
        with self.opened() as root:
            return closing(open_folder(root, path))

    def make(self) -> None:
        """Make the root, unless it is there; its name is durable then."""
        if not self.is_private:
            os.makedirs(self.path, exist_ok=True)
            _sync(os.path.dirname(self.path))
            return
        parent, name = os.path.split(self.path)
        _make_shared(parent)
        with self._parent() as folder:
            with suppress(FileExistsError):
                os.mkdir(name, self.folder_mode, dir_fd=folder)
            os.fsync(folder)
        with self.opened() as root:
            if stat.S_IMODE(os.fstat(root).st_mode) & 0o077:
                os.fchmod(root, 0o700)

    def _open(self) -> int:
        if self.is_private:
            return self._open_private()
        descriptor = os.open(self.path, _FOLDER)
        if not self._is_known:
            self._is_known = True
            if os.fstat(descriptor).st_mode & stat.S_IWOTH:
                _warn_once(self.path)
        return descriptor

    def _open_private(self) -> int:
        with self._parent() as parent:
            descriptor = self._open_folder(
                self.path,
                lambda: os.open(
                    os.path.basename(self.path), _FOLDER | os.O_NOFOLLOW, dir_fd=parent
                ),
            )
        try:
            self._check(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _parent(self) -> AbstractContextManager[int]:
        path = os.path.dirname(self.path)
        return closing(self._open_folder(path, lambda: os.open(path, _FOLDER | os.O_NOFOLLOW)))

    def _open_folder(self, path: str, open_it: Callable[[], int]) -> int:
        try:
            return open_it()
        except NotADirectoryError:
            raise self._refused(f"{path!r} is a link or a file, not a folder") from None
        except PermissionError:
            raise self._refused(f"{path!r} is closed to this user") from None

    def _check(self, found: os.stat_result) -> None:
        user = os.geteuid()
        if found.st_uid != user:
            raise self._refused(f"it belongs to user {found.st_uid}, and this is user {user}")
        if found.st_mode & 0o022:
            mode = stat.S_IMODE(found.st_mode)
            raise self._refused(f"other users may write there (its mode is {mode:04o})")

    def _refused(self, why: str) -> UnsafeRootError:
        return UnsafeRootError(
            f"the default storage {self.path!r} is not used, because {why}. Name a storage with "
            "storage=… or RAY_WORKFLOW_STORAGE",
            why=why,
        )


@functools.cache
def _warn_once(path: str) -> None:
    log.warning(
        "Every user of this machine may write to the workflow storage %r, and so let the code of "
        "their choice run in its workflows. Take the right away: chmod o-w %s",
        path,
        path,
    )


def _sync(path: str) -> None:
    with closing(os.open(path, _FOLDER)) as descriptor:
        os.fsync(descriptor)


def _make_shared(folder: str) -> None:
    """Make the folder of all users' default roots, which is Ray's, too."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    with closing(os.open(folder, _FOLDER | os.O_NOFOLLOW)) as descriptor:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, _SHARED_FOLDER)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """While this lasts, the descriptor is open."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


#: Takes a folder, a path below it, flags and a mode. The descriptor, or None where the system has no such call.
OpenAtOnce = Callable[[int, str, int, int], int | None]


def open_below(
    folder: int, path: str, flags: int, mode: int = 0, *, at_once: OpenAtOnce | None = None
) -> int:
    """Open what is below a folder; like ``os.open``, but no link on the way is followed.

    :param at_once: opens a path without links in one call; by default Linux's.
    :raises OSError: with ``ELOOP`` where there is a link.
    """
    parts = _parts(path)
    flags |= _SAFE
    open_it = at_once or open_at_once
    if len(parts) > 1 and (descriptor := open_it(folder, path, flags, mode)) is not None:
        return descriptor
    opened = [folder]
    try:
        for part in parts[:-1]:
            opened.append(_open_part(part, _FOLDER | _SAFE, 0, opened[-1]))
        return _open_part(parts[-1], flags, mode, opened[-1])
    finally:
        for descriptor in opened[1:]:
            os.close(descriptor)


def split(path: str) -> tuple[str, str]:
    """The folder and the name of what is below a root."""
    *folders, name = _parts(path)
    return "/".join(folders), name


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not all(part.strip(".") for part in parts):
        raise OSError(errno.EINVAL, "it is not a path below the storage", path)
    return parts


def _open_part(name: str, flags: int, mode: int, folder: int) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise


def open_folder(folder: int, path: str) -> int:
    """Open a folder below a folder, itself as ``""``."""
    return open_below(folder, path, os.O_RDONLY | os.O_DIRECTORY) if path else os.dup(folder)


def open_file(folder: int, path: str) -> int:
    """Open a regular file below a folder for reading.

    :raises OSError: when it is something else: a link, a FIFO, a device.
    """
    descriptor = open_below(folder, path, os.O_RDONLY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, _NOT_REGULAR, path)


def reason(exc: OSError) -> str:
    """Why a call failed, for people, without a full stop."""
    if exc.errno == errno.ELOOP:
        return "a link stands in its way, and no link below the storage is followed"
    if exc.errno == errno.ENXIO:  # to open a socket
        return _NOT_REGULAR
    return exc.strerror or str(exc)


_NOT_REGULAR = "it is not a regular file"


# ---- Linux opens a path without links in one call; elsewhere it takes one for each folder.


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_OPENAT2 = ctypes.c_long(437)  # on every architecture
_HOW_SIZE = ctypes.c_size_t(ctypes.sizeof(_How))
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
# An old kernel does not know it, and some containers forbid what they don't know.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EAGAIN, errno.EINTR})


def open_at_once(
    folder: int, path: str, flags: int, mode: int, *, call: Callable[..., int] | None = None
) -> int | None:
    """The descriptor of a path without links; None where the system can't open it so.

    :param call: the C library's ``syscall``, by default this process's; it leaves the error in :mod:`ctypes`.
    :raises OSError: when the path can't be opened.
    """
    call = call or _system_call()
    if call is None or os.uname().sysname != "Linux":
        return None
    # With O_NOFOLLOW, a link in the place of a folder would look like a file.
    how = ctypes.byref(_How(flags & ~os.O_NOFOLLOW, mode, _NO_SYMLINKS | _BENEATH))
    descriptor = call(_OPENAT2, ctypes.c_int(folder), os.fsencode(path), how, _HOW_SIZE)
    if descriptor >= 0:
        return descriptor
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return None
    raise OSError(code, os.strerror(code), path)


@functools.cache
def _system_call() -> Callable[..., int] | None:
    with suppress(OSError, AttributeError):
        call = ctypes.CDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        return call
    return None
