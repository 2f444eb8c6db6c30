"""A manager's word that it is alive: one small document each, renewed until it stops.

A lease is dead as soon as the manager's process is known to be gone (on the same machine), or when
it has not changed for its whole time, by the reader's own monotonic clock. Until a reader has looked
for so long, it goes by the time in the lease, and clocks of two machines may differ: what looks
expired is *doubtful* then. Readers show it as dead; whoever wants to take its workflows waits.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from airflow_provider_rayworkflow.workflow.documents import well_typed

Json = dict[str, Any]

#: How long a lease lasts without renewal, and so how long a status may be out of date after the
#: loss of a machine. Renewed three times in that time.
LEASE_TTL_S = 15.0
#: How far the clocks of two machines may be apart. What expired before that is dead, not doubtful.
MAX_CLOCK_SKEW_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process, told apart from every other one on any machine.

    :ivar machine: the boot and the process namespace that the number is of, ``""`` if unknown.
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
        """True if it is of this machine, and so goes by the same clock."""
        return bool(self.machine) and self.machine == _machine()

    def is_gone(self) -> bool:
        """True if the process is known to have ended; False also where that can't be known."""
        return self.is_here and _start_time(self.pid) != self.started


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One manager's lease.

    :ivar actor_id: of the manager; the same when Ray restarts it, which then recovers at once
        what it owned before.
    :ivar renewed_at: seconds since the epoch.
    :ivar limits: how many workflows may run and wait, for the manager after it.
    """

    manager_id: str
    actor_id: str
    process: Process
    renewed_at: float
    ttl_s: float = LEASE_TTL_S
    package_version: str = ""
    limits: dict[str, int | None] = field(default_factory=dict)

    def is_alive(self, now: float) -> bool:
        return now < self.renewed_at + self.ttl_s and not self.process.is_gone()

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> Lease:
        return well_typed(cls(**value | {"process": well_typed(Process(**value["process"]))}))


Verdict = Literal["alive", "doubtful", "dead"]


@dataclass(kw_only=True, slots=True)
class _Seen:
    stamp: float
    since: float
    last_look: float
    was_renewed: bool
    verdict: Verdict = "doubtful"


class LeaseWatch:
    """Judges leases, and remembers for how long each has been the same.

    :param clock: seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def judge(self, lease: Lease, now: float) -> Verdict:
        """How a lease stands that was read just now.

        :param now: seconds since the epoch.
        """
        seen = self._look(lease.manager_id, lease.renewed_at, lease.ttl_s)
        if lease.process.is_gone() or self._clock() - seen.since >= lease.ttl_s:
            seen.verdict = "dead"
        elif seen.was_renewed or lease.is_alive(now):
            seen.verdict = "alive"
        elif lease.process.is_here or now > lease.renewed_at + lease.ttl_s + MAX_CLOCK_SKEW_S:
            seen.verdict = "dead"
        else:
            seen.verdict = "doubtful"
        return seen.verdict

    def judge_damaged(self, manager_id: str) -> Verdict:
        """How a lease stands that can't be read: who lives writes it anew."""
        seen = self._look(manager_id, -1.0, LEASE_TTL_S)
        seen.verdict = "dead" if self._clock() - seen.since >= LEASE_TTL_S else "doubtful"
        return seen.verdict

    def judge_unreadable(self, manager_id: str) -> Verdict:
        """How a lease stands that this process may not read: its manager may go on renewing it."""
        self._look(manager_id, -2.0, LEASE_TTL_S).verdict = "doubtful"
        return "doubtful"

    def is_doubtful(self, manager_id: str) -> bool:
        """True if the manager may live, by the latest look at its lease."""
        seen = self._seen.get(manager_id)
        return seen is not None and seen.verdict == "doubtful"

    def _look(self, manager_id: str, stamp: float, ttl_s: float) -> _Seen:
        now = self._clock()
        with self._lock:
            seen = self._seen.get(manager_id)
            if seen is None or seen.stamp != stamp:
                was_renewed = seen is not None and now - seen.last_look < ttl_s
                seen = _Seen(stamp=stamp, since=now, last_look=now, was_renewed=was_renewed)
                self._seen[manager_id] = seen
            seen.last_look = now
            return seen


def _machine() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def _start_time(pid: int) -> str:
    """The process's start in clock ticks since boot; "" if there is no such process."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""
