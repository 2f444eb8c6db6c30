"""A manager's word that it is alive: one small document each, renewed until it stops.

A lease counts as dead when its time is over, or, for a reader on the same machine, as soon as the
manager's process is gone.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

#: How long a lease lasts without renewal, and so how long a status may be out of date after the
#: loss of a machine. Renewed three times in that time.
LEASE_TTL_S = 15.0


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

    def is_gone(self) -> bool:
        """True if the process is known to have ended; False also where that can't be known."""
        if not self.machine or self.machine != _machine():
            return False
        return _start_time(self.pid) != self.started


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
        return cls(**value | {"process": Process(**value["process"])})


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
