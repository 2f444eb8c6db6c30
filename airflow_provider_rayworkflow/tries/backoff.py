"""How long to keep retrying an unreachable service. The clock, and what sleeps, come in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0


class Backoff:
    """Counts the time since something last worked, and says how long to wait.

    :param timeout_s: how long failures in a row are retried, in seconds.
    :param first_wait_s: before the first retry; each wait after it is twice as long, up to 30 s.
    :param clock: seconds since any moment.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        first_wait_s: float = _FIRST_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout_s = timeout_s
        self._first_wait_s = first_wait_s
        self._clock = clock
        self._failing_since: float | None = None
        self._next_wait_s = first_wait_s

    def worked(self) -> None:
        """It works: forget what failed."""
        self._failing_since = None
        self._next_wait_s = self._first_wait_s

    def failed(self) -> float | None:
        """It does not: how many seconds to wait before the next attempt, None for no more."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        left = self._failing_since + self.timeout_s - now
        if left <= 0:
            return None
        wait_s, self._next_wait_s = self._next_wait_s, min(self._next_wait_s * 2, _LONGEST_WAIT_S)
        return min(wait_s, left)

    def retrying(
        self,
        call: Callable[[], T],
        *,
        errors: type[E],
        warn: Callable[..., object],
        wait: Callable[[float], object] | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        may_pass: Callable[[E], bool] = lambda _: True,
    ) -> T:
        """Call until that works.

        :param errors: what says that the service can't be reached. It is raised when the time is
            over, or the caller is stopping; any other one at once.
        :param warn: a logger's method, told before each wait.
        :param wait: waits for some seconds, or until something wakes it; by default a sleep.
        :param is_stopping: True if there shall be no further attempt.
        :param may_pass: False for an error of these that is raised at once.
        """
        while True:
            try:
                result = call()
            except errors as exc:
                wait_s = None if is_stopping() or not may_pass(exc) else self.failed()
                if wait_s is None:
                    raise
                joint = " Next" if str(exc).endswith(".") else "; next"
                warn("%s%s attempt in %.0f s", exc, joint, wait_s)
                (wait or time.sleep)(wait_s)
            else:
                self.worked()
                return result
