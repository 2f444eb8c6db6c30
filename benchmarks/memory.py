"""How much memory processes take together, which are known by a variable in their environment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Set it where the processes are started; a process that sets it for its children does not count itself.
MARK_VARIABLE = "RAYWORKFLOW_BENCHMARK"

_LOOK_S = 0.5


def megabytes(mark: str) -> float:
    """The memory of all processes with a mark: what they share is divided among them (PSS)."""
    return sum(_pss_kib(folder) for folder in _marked(mark)) * 1024 / 1e6


class Peak:
    """Looks twice a second, from ``with`` to the end of it.

    :ivar megabytes: the most that the processes with a mark took at any look.
    """

    def __init__(self, mark: str) -> None:
        self.megabytes = 0.0
        self._mark = mark
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(_LOOK_S):
            self.megabytes = max(self.megabytes, megabytes(self._mark))


def _marked(mark: str) -> Iterator[Path]:
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or it has ended
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield folder


def _pss_kib(folder: Path) -> int:
    with suppress(OSError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
