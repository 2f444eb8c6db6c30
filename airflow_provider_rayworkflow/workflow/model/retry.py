"""How a task's exceptions are retried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.model.graph import RetryOptions


_MOST_FACTOR = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Retry:
    """For ``@workflow.task(retry=…)``: try a task again when it raises certain exceptions.

    The waits grow exponentially and have a random part, so that tasks that failed together don't
    come back together. Lost workers and nodes don't count here; they have budgets
    of their own.

    :param attempts: how often the task is tried in all, at least 1.
    :param on: the exceptions to retry on; by default all, also those that are no ``Exception``.
    :param wait_initial: before the second attempt; seconds or a timedelta.
    :param wait_factor: each wait is so many times the one before.
    :param wait_max: the longest wait; seconds or a timedelta.
    :raises TypeError: when ``on`` is not made of exception types.
    :raises ValueError: for numbers that make no sense.
    """

    attempts: int
    on: type[BaseException] | tuple[type[BaseException], ...] = BaseException
    wait_initial: float | timedelta = 1.0
    wait_factor: float = 2.0
    wait_max: float | timedelta = 60.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise ValueError(f"attempts must be a whole number from 1, not {self.attempts!r}.")
        types = self.on if isinstance(self.on, tuple) else (self.on,)
        if not types or not all(
            isinstance(t, type) and issubclass(t, BaseException) for t in types
        ):
            raise TypeError(f"on must be exception types, not {self.on!r}.")
        if seconds("wait_initial", self.wait_initial) > seconds("wait_max", self.wait_max):
            raise ValueError(
                f"wait_initial ({self.wait_initial}) must not be longer than "
                f"wait_max ({self.wait_max})."
            )
        factor = self.wait_factor
        is_number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if not is_number or not 1 <= factor <= _MOST_FACTOR:
            raise ValueError(
                f"wait_factor must be a number from 1 to {_MOST_FACTOR}, not {factor!r:.100}."
            )

    def to_options(self) -> RetryOptions:
        """The part that the scheduler needs; it knows no types."""
        # A DAG file has retries, and only a run has graphs.
        from airflow_provider_rayworkflow.workflow.model.graph import RetryOptions

        return RetryOptions(
            attempts=self.attempts,
            wait_initial_s=seconds("wait_initial", self.wait_initial),
            wait_factor=float(self.wait_factor),
            wait_max_s=seconds("wait_max", self.wait_max),
        )


def seconds(name: str, duration: float | timedelta) -> float:
    """A duration in seconds.

    :raises ValueError: when it is negative or no duration.
    """
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, (int, float)) or not duration >= 0:
        raise ValueError(f"{name} must be seconds or a timedelta, not negative: {duration!r}.")
    try:
        return float(duration)
    except OverflowError:
        raise ValueError(f"{name} is too long. Give at most 1e308 seconds.") from None
