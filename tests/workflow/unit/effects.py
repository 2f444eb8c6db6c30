"""What tasks in this process leave behind, and what they wait for.

A module of its own: it is pickled by its name, and so the tasks that use it can be pickled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

calls: list[object] = []
gate = threading.Event()


@contextmanager
def fresh() -> Iterator[None]:
    """No calls, and a closed gate; at the end no task is left running."""
    calls.clear()
    gate.clear()
    yield
    gate.set()
    join_tasks()


def join_tasks() -> None:
    """Wait until all threads of tasks have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("workflow task"):
            thread.join()
