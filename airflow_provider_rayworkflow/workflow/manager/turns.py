"""Starts of several workflows, which are under way at the same time and take their slots in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Turn:
    """When one of several starts may take a slot: when those before it have taken theirs, or failed.

    :param before: of the start right before; None for the first one.
    """

    def __init__(self, before: Turn | None = None) -> None:
        self._before = before
        self._has_taken = asyncio.Event()
        self._is_over = asyncio.Event()

    async def come(self) -> None:
        """Wait until the turn has come."""
        if self._before is not None:
            await self._before._has_taken.wait()

    async def be_alone(self) -> None:
        """Wait until those before it are over: they may have given back what they had taken."""
        if self._before is not None:
            await self._before._is_over.wait()

    def pass_on(self) -> None:
        """The start has a slot, or a place in the queue: it is the next one's turn."""
        self._has_taken.set()

    async def end(self) -> None:
        """The start is over. Returns when those before it are, too."""
        await self.come()
        self.pass_on()
        await self.be_alone()
        self._is_over.set()
        self._before = None


async def in_turns(
    start: Callable[[str, Turn], Awaitable[T]], workflow_ids: Sequence[str], *, at_once: int
) -> list[T]:
    """Start workflows, a few at the same time, and return what the starts return, in their order.

    :param at_once: how many.
    """
    # It lets them in as they come: those before one that is under way are under way, or over.
    places = asyncio.Semaphore(at_once)

    async def start_one(workflow_id: str, turn: Turn) -> T:
        try:
            async with places:
                return await start(workflow_id, turn)
        finally:
            await turn.end()

    turn: Turn | None = None
    starting = []
    async with asyncio.TaskGroup() as group:
        for workflow_id in workflow_ids:
            turn = Turn(turn)
            starting.append(group.create_task(start_one(workflow_id, turn)))
    return [task.result() for task in starting]
