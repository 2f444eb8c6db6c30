"""How many tasks in this process run at once.

A module of its own: it is pickled by its name, and so the tasks that use it can be pickled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_changing = threading.Lock()
_is_full = threading.Event()
_running = 0
_most = 0
_wanted = 0


@contextmanager
def of(wanted: int) -> Iterator[None]:
    """Begin anew: tasks stay until so many of them run."""
    global _running, _most, _wanted
    _running, _most, _wanted = 0, 0, wanted
    _is_full.clear()
    yield
    _is_full.set()


def most() -> int:
    """The most that have run at once."""
    return _most


def enter() -> None:
    """A task runs; returns when so many do that are wanted."""
    global _running, _most
    with _changing:
        _running += 1
        _most = max(_most, _running)
        if _running >= _wanted:
            _is_full.set()
    _is_full.wait(30)


def leave() -> None:
    """A task has run."""
    global _running
    with _changing:
        _running -= 1
