"""The state folder, where the callers and the keeper of a local Ray meet.

Only this user may read or write it, which each call checks. Two files are locked with ``flock``,
which the kernel lets go of when a process dies, and are never deleted:

- ``door.lock`` is held for moments, by a process that changes what the folder says, or acts on it;
- ``keeper.lock`` is held by the keeper for its life: it says that there is one, whatever the
  documents say.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.local_ray.state import (
    KeeperState,
    ManagerReport,
    ManagerRequest,
    Presence,
    StartFailure,
)
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.roots import (
    Root,
    UnsafeRootError,
    closing,
    open_below,
    open_folder,
    reason,
)

log = get_logger(__name__)

T = TypeVar("T")

_DOOR, _KEEPER = "door.lock", "keeper.lock"
_STATE, _FAILURE = "state.json", "failure.json"
_TOKEN, _LOG = "token", "keeper.log"
_REQUESTS, _REPORTS, _PRESENCES = "requests", "managers", "present"

_LOCK_POLL_S = 0.02


class DoorBusyError(LocalRayError):
    """Another process has held the door for longer than the caller waits."""


class HeldPresence(NamedTuple):
    """A presence of this process: its key, and the descriptor of the locked file."""

    key: str
    descriptor: int


class StateFolder:
    """One environment's folder below a root; see the module.

    :param root: the absolute path of :func:`.environment.state_root`.
    :param name: of the environment.
    :param signing: the keys of the documents; None for those of the process's environment.
    """

    def __init__(self, root: str, name: str, *, signing: SigningKeys | None = None) -> None:
        self.root = root
        self.name = name
        self._place = Root(root, is_private=True)
        self._store = LocalStore(root, is_private=True)
        self._signing = signing

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.name)

    @property
    def token_path(self) -> str:
        return os.path.join(self.path, _TOKEN)

    @property
    def log_path(self) -> str:
        return os.path.join(self.path, _LOG)

    def make(self) -> None:
        """Make the folder, unless it is there.

        :raises LocalRayError: when it can't be made, or might be another user's.
        """
        with self._refusals():
            with suppress(FileNotFoundError), self._place.folder(f"{self.name}/{_PRESENCES}"):
                return
            self._place.make()
            with self._place.opened() as root:
                for folder in (self.name, f"{self.name}/{_PRESENCES}"):
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=root)
                os.close(open_folder(root, self.name))  # it is no link

    # ---- locks

    @contextmanager
    def door(
        self, *, timeout_s: float, on_wait: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Hold the door.

        :param timeout_s: how long to wait for it.
        :param on_wait: called once, if it has to be waited for.
        :raises DoorBusyError: when another process holds it for longer.
        """
        deadline = time.monotonic() + timeout_s
        has_waited = False
        while (descriptor := self._take(_DOOR)) is None:
            if time.monotonic() >= deadline:
                raise DoorBusyError(
                    f"Another process has held {os.path.join(self.path, _DOOR)!r} for "
                    f"{timeout_s:g} s. Look for a stopped process: fuser -v on that file."
                )
            if not has_waited:
                has_waited = True
                on_wait()
            time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            _let_go(descriptor)

    def has_keeper(self) -> bool:
        """True if a keeper lives. Only behind the door: it takes the lock for a moment."""
        if (descriptor := self.take_keeper_lock()) is not None:
            _let_go(descriptor)
        return descriptor is None

    def take_keeper_lock(self) -> int | None:
        """The keeper's lock as a descriptor that holds it; None if a keeper lives."""
        return self._take(_KEEPER)

    def is_keeper_lock(self, descriptor: int) -> bool:
        """False if the lock's file is no longer the one that was locked: it was deleted."""
        with suppress(OSError), self._place.opened() as root:
            found = os.stat(f"{self.name}/{_KEEPER}", dir_fd=root, follow_symlinks=False)
            return os.path.samestat(found, os.fstat(descriptor))
        return False

    def keep(self) -> None:
        """Let the files that a keeper needs look used: what cleans ``/tmp`` deletes those of ten days ago."""
        with self._refusals(), self._place.folder(self.name) as folder:
            for name in (_KEEPER, _DOOR, _TOKEN, _LOG):
                with suppress(FileNotFoundError):
                    os.utime(name, dir_fd=folder, follow_symlinks=False)

    def _take(self, name: str) -> int | None:
        key = f"{self.name}/{name}"
        with self._refusals(), self._place.opened() as root:
            descriptor = open_below(root, key, os.O_RDWR | os.O_CREAT, 0o600)
            if _lock(descriptor):
                found = os.stat(key, dir_fd=root, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(descriptor)):
                    return descriptor
            os.close(descriptor)
        return None

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except UnsafeRootError as exc:
            raise LocalRayError(_refusal(self.root, f"is not used, because {exc.why}")) from None
        except OSError as exc:
            raise LocalRayError(_refusal(self.path, f"can't be used: {reason(exc)}")) from exc

    # ---- who is present

    def enter(self, presence: Presence) -> HeldPresence:
        """Say that this process uses the local Ray. Only behind the door."""
        key = self._key(_PRESENCES, f"{uuid.uuid4().hex}.json")
        content = dump_document(key, "presence", asdict(presence), signing=self._signing)
        with self._refusals(), self._place.opened() as root:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            descriptor = open_below(root, key, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.write(descriptor, b"".join(content))
            except BaseException:
                os.close(descriptor)
                raise
        return HeldPresence(key, descriptor)

    def leave(self, held: HeldPresence) -> None:
        """Take back what :meth:`enter` said."""
        with suppress(StorageError):  # unlocked, it says as little
            self._store.delete([held.key])
        os.close(held.descriptor)

    def presences(self) -> list[Presence]:
        """Who is present. Those of processes that have died are deleted. Only behind the door."""
        found = []
        for entry in self._store.list(self._key(_PRESENCES)):
            if self._is_locked(entry.key):
                if (presence := self._read(entry.key, "presence", Presence)) is not None:
                    found.append(presence)
            else:
                self._store.delete([entry.key])
        return found

    def _is_locked(self, key: str) -> bool:
        try:
            with self._refusals(), self._place.opened() as root:
                try:
                    descriptor = open_below(root, key, os.O_RDWR)
                except FileNotFoundError:  # its process has left
                    return False
        except LocalRayError:
            return False
        with closing(descriptor):
            return not _lock(descriptor)

    # ---- documents

    def read_state(self) -> KeeperState | None:
        """What the latest keeper says; only believable while there is a keeper."""
        return self._read(self._key(_STATE), "keeper", KeeperState.of)

    def write_state(self, state: KeeperState) -> None:
        self._write(self._key(_STATE), "keeper", state)

    def read_failure(self) -> StartFailure | None:
        """Why the latest keeper that could not start Ray could not."""
        return self._read(self._key(_FAILURE), "failure", StartFailure)

    def write_failure(self, failure: StartFailure) -> None:
        self._write(self._key(_FAILURE), "failure", failure)

    def request_manager(self, request: ManagerRequest) -> None:
        self._write(self._of_storage(_REQUESTS, request.storage), "manager request", request)

    def manager_requests(self) -> list[ManagerRequest]:
        """The requests that are not answered; those that can't be read are deleted."""
        found = []
        for entry in self._store.list(self._key(_REQUESTS)):
            request = self._read(entry.key, "manager request", ManagerRequest)
            if request is None:
                self._store.delete([entry.key])
            else:
                found.append(request)
        return found

    def report_manager(self, report: ManagerReport) -> None:
        """Answer the requests for a storage's manager."""
        self._write(self._of_storage(_REPORTS, report.storage), "manager report", report)
        self._store.delete([self._of_storage(_REQUESTS, report.storage)])

    def read_report(self, storage: str) -> ManagerReport | None:
        """The latest report about a storage's manager, which may be of an earlier keeper."""
        return self._read_report(self._of_storage(_REPORTS, storage))

    def reports(self) -> list[ManagerReport]:
        entries = self._store.list(self._key(_REPORTS))
        return [report for entry in entries if (report := self._read_report(entry.key))]

    def clear(self) -> None:
        """Delete what an ended keeper has left. Only behind the door, with the keeper's lock."""
        self._store.delete([self._key(name) for name in (_STATE, _TOKEN)])
        for folder in (_REQUESTS, _REPORTS):
            self._store.delete([entry.key for entry in self._store.list(self._key(folder))])

    def write_token(self, token: str) -> None:
        """Keep Ray's token in :attr:`token_path`."""
        self._store.put(self._key(_TOKEN), f"{token}\n".encode())

    def open_log(self) -> int:
        """A descriptor of a new log of a keeper; the one before is kept beside it."""
        with self._refusals(), self._place.folder(self.name) as folder:
            with suppress(FileNotFoundError):
                os.replace(_LOG, f"{_LOG}.before", src_dir_fd=folder, dst_dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            return open_below(folder, _LOG, flags, 0o600)

    def _read_report(self, key: str) -> ManagerReport | None:
        return self._read(key, "manager report", ManagerReport)

    def _read(self, key: str, kind: str, record: Callable[..., T]) -> T | None:
        """A document; None if there is no such one, or if it can't be read."""
        try:
            data = self._store.get(key)
            with understanding(key, kind):
                return well_typed(record(**load_line(key, kind, data, signing=self._signing)))
        except KeyNotFoundError:
            return None
        except DataLoadError as exc:
            log.warning("A document of the local Ray in %s is of no use: %s", self.root, exc)
            return None

    def _write(self, key: str, kind: str, record: Any) -> None:
        self._store.put(key, dump_document(key, kind, asdict(record), signing=self._signing))

    def _key(self, *parts: str) -> str:
        return "/".join([self.name, *parts])

    def _of_storage(self, folder: str, storage: str) -> str:
        digest = hashlib.sha256(storage.encode(errors="surrogatepass")).hexdigest()[:32]
        return self._key(folder, f"{digest}.json")


def list_folders(root: str) -> list[StateFolder]:
    """The state folders below a root, sorted by name; none if there is no root.

    :raises LocalRayError: when the root might be another user's.
    """
    try:
        with Root(root, is_private=True).opened() as descriptor, os.scandir(descriptor) as found:
            names = sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except UnsafeRootError as exc:
        raise LocalRayError(_refusal(root, f"is not used, because {exc.why}")) from None
    return [StateFolder(root, name) for name in names]


def _refusal(path: str, why: str) -> str:
    return (
        f"The folder {path!r} of the local Ray {why}. Name another one with {FOLDER_VARIABLE}, the "
        "same for all of Airflow's processes."
    )


def _let_go(descriptor: int) -> None:
    # Not by closing alone: a child that was forked meanwhile has the descriptor, too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
