"""What tasks leave behind for a test to see, and what they wait for. Files, so that they last.

Workers import this module: the test session puts its folder into their PYTHONPATH.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    """Return the condition's first true value; fail when it is not true in time."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not true after {deadline_s} s")
        time.sleep(0.02)
    return value


@dataclass(frozen=True)
class Ledger:
    """Lines that tasks append, in the order in which they came."""

    path: Path

    def write(self, line: object = "called") -> None:
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def count(self, line: object = "called") -> int:
        return self.lines().count(str(line))

    def wait_for(self, line: object = "called", *, times: int = 1) -> None:
        wait_until(lambda: self.count(line) >= times)

    def wait_for_any(self, start: str) -> None:
        """Wait for a line that begins like this."""
        wait_until(lambda: any(line.startswith(start) for line in self.lines()))


@dataclass(frozen=True)
class Gate:
    """Closed until the test opens it."""

    path: Path

    def open(self) -> None:
        self.path.touch()

    def close(self) -> None:
        self.path.unlink(missing_ok=True)

    @property
    def is_open(self) -> bool:
        return self.path.exists()

    def wait(self) -> None:
        wait_until(lambda: self.is_open, deadline_s=120)


@dataclass(frozen=True)
class Crash:
    """Kills the process that comes by, as often as it is armed."""

    path: Path

    def arm(self, times: int = 1) -> None:
        self.path.write_text("x" * times)

    def pass_by(self) -> None:
        left = len(self.path.read_text()) if self.path.exists() else 0
        if left:
            self.path.write_text("x" * (left - 1))
            os.kill(os.getpid(), 9)


def is_alive(pid: int) -> bool:
    """True while the process runs; a zombie doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
