"""Waits for what other threads, tasks and processes do; a wait in vain fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_AT_MOST_S = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as it is so."""
    async with asyncio.timeout(_AT_MOST_S):
        while not condition():
            await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], T]) -> T:
    """The condition's first true value."""
    end = time.monotonic() + _AT_MOST_S
    while not (found := condition()):
        assert time.monotonic() < end, f"still not true after {_AT_MOST_S:g} s"
        time.sleep(0.01)
    return found
