"""What a workflow can wait for. Pure: the waiting itself is :mod:`.runtime.worker.waits`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

#: What a listener returns: whatever its author wants the workflow to get.
Event = Any


class EventListener:
    """Waits for one event. Subclass it, and pass the class to ``workflow.wait_for_event``.

    An instance is made, without arguments, for each of the two calls; they may happen in
    different processes. Waiting holds no worker and no CPU.
    """

    async def poll_for_event(self, *args: Any, **kwargs: Any) -> Event:
        """Return when the event is there. What it returns is then checkpointed.

        After a crash that comes before the checkpoint, it is called again.

        :param args: and ``kwargs``: what ``wait_for_event`` was given.
        """
        raise NotImplementedError

    async def event_checkpointed(self, event: Event) -> None:
        """Called when the event is checkpointed, to acknowledge it; at least once.

        :param event: what :meth:`poll_for_event` returned.
        """


class TimerListener(EventListener):
    """Waits until a time."""

    async def poll_for_event(self, timestamp: float) -> None:
        """Return at the time.

        :param timestamp: seconds since the epoch.
        """
        await asyncio.sleep(max(0.0, timestamp - time.time()))
