"""What tasks in this process leave behind, and what they wait for.

A module of its own: it is pickled by its name, and so the tasks that use it can be pickled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

calls: list[object] = []
gate = threading.Event()
broken: set[object] = set()


def note(what: object) -> None:
    """Leave a trace, and fail if this is broken."""
    calls.append(what)
    if what in broken:
        raise OSError(f"{what} is broken")


@contextmanager
def fresh() -> Iterator[None]:
    """No calls, a closed gate, nothing broken; at the end no task is left running."""
    calls.clear()
    gate.clear()
    broken.clear()
    yield
    gate.set()
    join_tasks()


def join_tasks() -> None:
    """Wait until all threads of tasks have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("workflow task"):
            thread.join()
