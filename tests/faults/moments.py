"""When a fault strikes at requests of an S3 server: at random, or at the n-th of a kind."""

from __future__ import annotations

import threading

from runs import Run
from worlds import S3World


def on_s3(run: Run) -> S3World:
    if not isinstance(run.world, S3World):
        raise TypeError("this fault is one of an S3 server")
    return run.world


class Dice:
    """Random numbers for several threads, from the run's own."""

    def __init__(self, run: Run) -> None:
        self._rng = type(run.rng)(run.rng.random())
        self._lock = threading.Lock()

    def roll(self) -> float:
        with self._lock:
            return self._rng.random()


class Countdown:
    """Says once, to one of several threads, that it is the n-th call."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._lock = threading.Lock()

    def is_now(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0
