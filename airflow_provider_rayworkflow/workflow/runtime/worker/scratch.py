"""Local folders of one attempt. What killed processes have left is deleted by the next one that makes one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import uuid
from contextlib import suppress
from pathlib import Path


class Scratch:
    """Local folders for the time of an attempt.

    A lock, which ends with the process, says that they are used: also to processes of other containers
    that share the machine's folder for temporary files.

    :param root: where they are; by default the system's folder for temporary files.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(tempfile.gettempdir())
        self._prefix = f"rayworkflow-{os.getuid()}-"
        self._folder = self._root / f"{self._prefix}{uuid.uuid4().hex}"
        self._lock: int | None = None
        self._mutex = threading.Lock()  # threads of the attempt may go on after it
        self._is_closed = False

    def new_folder(self) -> Path:
        """An empty folder.

        :raises RuntimeError: after :meth:`close`.
        """
        with self._mutex:
            if self._is_closed:
                raise RuntimeError("The attempt has ended: it gets no local folder any more.")
            if self._lock is None:
                self._delete_left()
                self._lock = _locked(self._lock_of(self._folder))
                self._folder.mkdir(mode=0o700)
            return Path(tempfile.mkdtemp(dir=self._folder))

    def close(self) -> None:
        """Delete them all."""
        with self._mutex:
            self._is_closed = True
            if self._lock is not None:
                self._delete(self._folder)
                os.close(self._lock)
                self._lock = None

    def _delete_left(self) -> None:
        for lock in self._root.glob(f"{self._prefix}*.lock"):
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            except OSError:  # deleted meanwhile, or not ours
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have deleted this one, and a third made one of the same name.
                if os.fstat(descriptor).st_ino == lock.stat().st_ino:
                    self._delete(lock.with_suffix(""))
            except OSError:  # its process lives, or it was deleted meanwhile
                pass
            finally:
                os.close(descriptor)

    def _delete(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            self._lock_of(folder).unlink()

    def _lock_of(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.lock")


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of a new file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)  # another process took it for left between these two calls
