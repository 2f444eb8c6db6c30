"""Archives of code on a node: unpacked once each, and on the import path of the processes that need them.

Ray knows nothing of archives. What it gets in place of a local folder is an environment variable that names
them (:func:`ray_environment`): it keeps workers of different code apart, since Ray gives no task a
worker of another runtime environment. So no worker ever has two versions of a module. The process itself
calls :func:`enter_archives` before it loads a function.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeGuard

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.code_variables import ARCHIVES_VARIABLE
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.archives import (
    ArchiveError,
    ArchiveStore,
    unpack,
)

log = get_logger(__name__)

Json = dict[str, Any]

# What no process has used for so long is deleted from a node when another archive is unpacked there.
_UNUSED_S = 7 * 24 * 3600.0


def ray_environment(runtime_env: Json) -> Json:
    """What Ray gets for the runtime environment of a submission.

    :param runtime_env: with references ``{"archive": "<sha256>"}``, which go into
        :data:`ARCHIVES_VARIABLE`; all else stays.
    """
    environment = dict(runtime_env)
    folder, modules = environment.get("working_dir"), environment.get("py_modules") or []
    archives: Json = {"working_dir": None, "py_modules": []}
    if _is_reference(folder):
        archives["working_dir"] = folder["archive"]
        del environment["working_dir"]
    archives["py_modules"] = [one["archive"] for one in modules if _is_reference(one)]
    if archives["py_modules"]:
        environment["py_modules"] = [one for one in modules if not _is_reference(one)]
    if not environment.get("py_modules", True):
        del environment["py_modules"]
    if archives["working_dir"] or archives["py_modules"]:
        named = {ARCHIVES_VARIABLE: json.dumps(archives, sort_keys=True)}
        environment["env_vars"] = (environment.get("env_vars") or {}) | named
    return environment


def _is_reference(value: Any) -> TypeGuard[Json]:
    return isinstance(value, dict) and isinstance(value.get("archive"), str)


class NodeCache:
    """Unpacked archives on this node, for the processes of one user.

    :param folder: where they lie; by default in the folder for temporary files. It is made so that no
        other user can write there.
    :raises ArchiveError: when it can't be made, or belongs to another user.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"rayworkflow-archives-{os.getuid()}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._folder.lstat()
        except OSError as exc:
            raise ArchiveError(f"Code can't be unpacked in {str(self._folder)!r}: {exc}") from exc
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.getuid()
            or stat.S_IMODE(found.st_mode) & 0o022
        ):
            raise ArchiveError(
                f"Code can't be unpacked in {str(self._folder)!r}: another user could change it there. "
                "Delete that folder, or set TMPDIR on the cluster's nodes."
            )

    def get(self, archives: ArchiveStore, sha256: str) -> Path:
        """The folder of an unpacked archive, which stays as long as this process lives.

        Of several processes that ask at once, one unpacks it.

        :raises StorageError: when it can't be read from the storage.
        :raises ArchiveError: when it can't be unpacked.
        """
        target = self._folder / sha256
        try:
            with self._lock(f"{sha256}.lock"):
                if not target.is_dir():
                    self._unpack(archives, sha256, target)
                self._begin_to_use(target)
        except OSError as exc:
            raise ArchiveError(f"Code can't be unpacked in {str(self._folder)!r}: {exc}") from exc
        return target

    def delete_unused(self) -> list[str]:
        """Delete what no process of this node uses, or has begun to use for so long; returns its SHA-256s."""
        deleted = []
        for path in sorted(self._folder.glob("*.used")):
            target = path.with_suffix("")
            with suppress(OSError), self._lock(f"{target.name}.lock", waits=False):
                if time.time() - path.stat().st_mtime < _UNUSED_S or not target.is_dir():
                    continue
                with self._lock(path.name, waits=False):
                    # Under its name it is whole, or not there, whatever dies meanwhile.
                    gone = target.rename(self._folder / f"{target.name}.{uuid.uuid4().hex}.tmp")
                    deleted.append(target.name)
                shutil.rmtree(gone, ignore_errors=True)
        return deleted

    @contextmanager
    def _lock(self, name: str, *, waits: bool = True) -> Iterator[None]:
        """Alone with a file of locks; an OSError where another process has it and this one does not wait."""
        with open(self._folder / name, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            yield

    def _begin_to_use(self, target: Path) -> None:
        """Let others see until this process ends that it uses an archive."""
        path = target.with_name(f"{target.name}.used")
        with _using:
            if path not in _used:
                file = open(path, "ab")  # noqa: SIM115 stays open
                fcntl.flock(file, fcntl.LOCK_SH)
                _used[path] = file
            os.utime(path)

    def _unpack(self, archives: ArchiveStore, sha256: str, target: Path) -> None:
        archive = archives.read(sha256)
        for left in self._folder.glob(f"{sha256}.*.tmp"):  # of a process that died
            shutil.rmtree(left, ignore_errors=True)
        temporary = self._folder / f"{sha256}.{uuid.uuid4().hex}.tmp"
        try:
            temporary.mkdir(mode=0o700)
            unpack(archive.data, temporary)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        log.info("Code is unpacked in %s", target)
        self.delete_unused()


# Open as long as the process: by these locks others see that it uses the archive.
_used: dict[Path, IO[bytes]] = {}
_using = threading.Lock()
_entered: set[str] = set()
_entering = threading.Lock()


def enter_archives(store: WorkflowStore, cache: NodeCache | None = None) -> None:
    """Put what :data:`ARCHIVES_VARIABLE` names onto the import path, and work in its ``working_dir``.

    Once in a process; without the variable, nothing.

    :raises StorageError: when an archive can't be read.
    :raises ArchiveError: when it can't be unpacked.
    """
    text = os.environ.get(ARCHIVES_VARIABLE, "")
    if not text or text in _entered:
        return
    with _entering:
        if text in _entered:
            return
        named = json.loads(text)
        cache = cache or NodeCache()
        folder = named["working_dir"] and str(cache.get(store.archives, named["working_dir"]))
        modules = [str(cache.get(store.archives, sha256)) for sha256 in named["py_modules"]]
        sys.path[:0] = [*([folder] if folder else []), *modules]
        if folder:
            os.chdir(folder)
        _entered.add(text)
