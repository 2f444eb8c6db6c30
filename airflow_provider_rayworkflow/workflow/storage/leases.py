"""A manager's word that it is alive: one small document each, renewed until it stops.

Two sides look at it, and neither compares wall clocks:

- A reader (:class:`LeaseWatch`) takes a manager for *dead* when its process is known to have ended
  (same boot, same namespaces), or when the reader has seen the lease unchanged for its whole time
  by a monotonic clock of its own. So a first look never gives *dead* for a process that may live.
- The owner (:class:`Tenure`) counts from before each renewal, by a clock that counts the time in
  which its machine sleeps, and stops for good when the time is over: before any reader is done.

What a reader has not watched for so long is *alive* or *doubtful*. That is for display, and the only
place where the time in the lease counts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    JsonRecord,
    dump_document,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.retention import check_retention
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

log = get_logger(__name__)

Json = dict[str, Any]

#: How long a lease lasts without renewal, and so how long a status may be out of date after the
#: loss of a machine. Renewed three times in that time.
LEASE_TTL_S = 15.0
#: So much earlier the owner stops: clocks of two machines don't run at quite the same rate.
_MARGIN_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process, told apart from every other one on any machine.

    :ivar machine: the boot and the namespaces that number and start are of, ``""`` if unknown.
    """

    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Process:
        return cls._with_number(os.getpid())

    @classmethod
    def current_thread(cls) -> Process:
        """The thread as if it were a process: it may end before this one does."""
        return cls._with_number(threading.get_native_id())

    @classmethod
    def _with_number(cls, pid: int) -> Process:
        return cls(host=socket.gethostname(), machine=_machine(), pid=pid, started=_start_time(pid))

    @property
    def is_here(self) -> bool:
        """True if it is of this machine, and this process would see it."""
        return bool(self.machine and self.started) and self.machine == _machine()

    def is_gone(self) -> bool:
        """True if the process is known to have ended; False also where that can't be known."""
        if not self.is_here:
            return False
        started = _start_time(self.pid)
        return not _exists(self.pid) if not started else started != self.started


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease(JsonRecord):
    """One manager's lease.

    :ivar actor_id: of the manager; the same when Ray restarts it, which then recovers at once
        what it owned before.
    :ivar renewed_at: seconds since the epoch, for people.
    :ivar renewals: how often it was written; a clock may show the same time twice.
    :ivar limits: how many workflows may run and wait, for the manager after it.
    :ivar retention: days by status (:func:`check_retention`), for the manager after it.
    :ivar cluster: the id that submissions for this manager carry; ``""`` for a manager that takes none.
    """

    manager_id: str
    actor_id: str
    process: Process
    renewed_at: float
    ttl_s: float = LEASE_TTL_S
    renewals: int = 0
    package_version: str = ""
    limits: dict[str, int | None] = field(default_factory=dict)
    cluster: str = ""
    retention: dict[str, float] = field(default_factory=dict)

    def looks_alive(self, now: float) -> bool:
        """How it looks at first sight, by the clock. Good for display, not for a decision.

        :param now: seconds since the epoch.
        """
        return abs(now - self.renewed_at) < self.ttl_s

    @classmethod
    def from_json(cls, value: Json) -> Lease:
        lease = well_typed(cls(**value | {"process": well_typed(Process(**value["process"]))}))
        check_retention(lease.retention)
        return lease


Liveness = Literal["alive", "doubtful", "dead"]


@dataclass(kw_only=True, slots=True)
class _Seen:
    stamp: tuple[int, float]
    since: float
    last_look: float
    was_renewed: bool


class LeaseWatch:
    """Judges leases, and remembers for how long each has been the same.

    :param clock: seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._seen: dict[str, _Seen] = {}
        self._known_dead: set[str] = set()
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def judge(self, lease: Lease, now: float, *, asked_at: float | None = None) -> Liveness:
        """How a lease stands.

        :param now: seconds since the epoch; decides what is shown, never who is dead.
        :param asked_at: what :attr:`clock` said before the lease was read: a reader that is stopped
            between reading and judging has not seen it unchanged meanwhile. None for just now.
        """
        stamp = (lease.renewals, lease.renewed_at)
        seen, unchanged_s = self._look(lease.manager_id, stamp, lease.ttl_s, asked_at)
        if lease.process.is_gone() or unchanged_s >= lease.ttl_s:
            return "dead"
        if seen.was_renewed or lease.looks_alive(now):
            return "alive"
        return "doubtful"

    def judge_damaged(self, manager_id: str, *, asked_at: float | None = None) -> Liveness:
        """How a lease stands that can't be read: a manager that lives writes it anew."""
        _, unchanged_s = self._look(manager_id, (-1, 0.0), LEASE_TTL_S, asked_at)
        return "dead" if unchanged_s >= LEASE_TTL_S else "doubtful"

    def turn(self, manager_id: str) -> threading.Lock:
        """What a thread holds that reads a lease again and again: what it finds out holds for the others."""
        with self._lock:
            return self._turns.setdefault(manager_id, threading.Lock())

    def know_dead(self, manager_ids: Iterable[str]) -> None:
        """Take managers for dead whatever their leases say."""
        self._known_dead |= set(manager_ids)

    def is_known_dead(self, manager_id: str) -> bool:
        """True if :meth:`know_dead` has said so."""
        return manager_id in self._known_dead

    def _look(
        self, manager_id: str, stamp: tuple[int, float], ttl_s: float, asked_at: float | None
    ) -> tuple[_Seen, float]:
        now = self.clock()
        asked_at = now if asked_at is None else asked_at
        with self._lock:
            seen = self._seen.get(manager_id)
            if seen is None or seen.stamp != stamp:
                was_renewed = seen is not None and asked_at - seen.last_look < ttl_s
                seen = _Seen(stamp=stamp, since=now, last_look=now, was_renewed=was_renewed)
                self._seen[manager_id] = seen
            seen.last_look = now
            return seen, asked_at - seen.since


class LeaseStore:
    """The leases of all managers on one storage root.

    :param signing: as for :class:`WorkflowStore`.
    :ivar watch: what this process has seen of them.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self.watch = LeaseWatch()
        self._bytes = store
        self._signing = signing

    def write(self, lease: Lease) -> None:
        """Write a lease anew; one write.

        :raises DataSaveError: when it can't be written.
        """
        key = keys.lease_key(lease.manager_id)
        self._bytes.put(key, dump_document(key, "lease", lease.to_json(), signing=self._signing))

    def read(self, manager_id: str) -> Lease | None:
        """A manager's lease, None if it has been given back; one read.

        :raises DataLoadError: when it is damaged.
        """
        key = keys.lease_key(manager_id)
        try:
            data = self._bytes.get(key)
        except KeyNotFoundError:
            return None
        with understanding(key, "lease"):
            return Lease.from_json(load_line(key, "lease", data, signing=self._signing))

    def list_names(self) -> list[str]:
        """The ids of all managers that have a lease, dead ones included. One listing, no reads."""
        found = (keys.manager_of_lease(entry.key) for entry in self._bytes.list(keys.LEASES))
        return [manager_id for manager_id in found if manager_id is not None]

    def list_all(self) -> list[Lease]:
        """The leases of all managers, dead ones included; those that can't be read are left out."""
        leases = []
        for manager_id in self.list_names():
            try:
                lease = self.read(manager_id)
            except DataLoadError as exc:
                log.warning("A manager's lease can't be read: %s", exc)
                continue
            if lease is not None:
                leases.append(lease)
        return leases

    def delete(self, manager_id: str) -> None:
        """Give a lease back; one write."""
        self._bytes.delete([keys.lease_key(manager_id)])


def since_boot() -> float:
    """Seconds that never jump, and that count while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Tenure:
    """How long a manager may act: until others may take its lease for dead.

    Once over, it stays over: others may have decided already.

    :param clock: seconds that never jump.
    """

    def __init__(self, ttl_s: float = LEASE_TTL_S, clock: Callable[[], float] = since_boot) -> None:
        self.clock = clock
        self._ttl_s = ttl_s - _MARGIN_S
        self._end: float | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def extend(self, since: float) -> None:
        """The lease was renewed; what was written was read from :attr:`clock` before that."""
        with self._lock:
            if not self._check_over():
                self._end = max(self._end or 0.0, since + self._ttl_s)

    def end(self) -> None:
        """Let it be over now."""
        self._is_over = True

    @property
    def is_over(self) -> bool:
        """True if others may take this manager for dead. False before the first renewal."""
        with self._lock:
            return self._check_over()

    @property
    def left_s(self) -> float:
        """How long it lasts without another renewal."""
        return float("inf") if self._end is None else self._end - self.clock()

    def _check_over(self) -> bool:
        self._is_over = self._is_over or self.left_s <= 0
        return self._is_over


def _machine() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # /proc may have been mounted in another namespace, and number processes as that one does.
        if os.readlink("/proc/self") == str(os.getpid()):
            return "/".join([boot, *map(_namespace, ("pid", "time"))])
    return ""


def _namespace(kind: str) -> str:
    with suppress(FileNotFoundError):  # a kernel without namespaces of time
        return str(os.stat(f"/proc/self/ns/{kind}").st_ino)
    return ""


def _exists(pid: int) -> bool:
    """True also of a process that this one may not look at (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return False


def _start_time(pid: int) -> str:
    """The process's start in clock ticks since boot; "" if it has ended or can't be seen."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""
