"""Local folders of one attempt. What killed processes have left is deleted by the next one that makes one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
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

    def new_folder(self) -> Path:
        """An empty folder."""
        if self._lock is None:
            self._delete_left()
            self._lock = _locked(self._lock_of(self._folder))
            self._folder.mkdir(mode=0o700)
        return Path(tempfile.mkdtemp(dir=self._folder))

    def close(self) -> None:
        """Delete them all."""
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
                self._delete(lock.with_suffix(""))
            except OSError:  # its process lives
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
