"""Events that come by HTTP: stored when they come, given to whoever waits, and acknowledged.

Kept by the manager, so that neither the Serve replica that takes them nor a listener holds state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor as ThreadPool
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowEventHandleError
from airflow_provider_rayworkflow.workflow.storage.workflows import StoredEvent, WorkflowStore

T = TypeVar("T")

#: What became of an event: a workflow has checkpointed it; its listener refused it; it is
#: stored, and nobody has taken it yet.
Fate = Literal["committed", "refused", "stored"]

_FATES: dict[bool | None, Fate] = {True: "committed", False: "refused", None: "stored"}

# Before the epoch of a listener that names no task. No id of a task has a space.
_LISTENER = "listener of epoch "


class HttpEvents:
    """The events of all workflows.

    :param threads: where storage calls block.
    """

    def __init__(self, store: WorkflowStore, threads: ThreadPool) -> None:
        self._store = store
        self._threads = threads
        self._changed: dict[tuple[str, str], asyncio.Condition] = {}
        self._users: dict[tuple[str, str], int] = {}

    async def post(self, workflow_id: str, event_key: str, payload: Any, *, wait_s: float) -> Fate:
        """Store an event, then wait for its fate.

        The same payload again, while the first one is not acknowledged, is the same event.

        :param wait_s: how long to wait for the workflow, in seconds.
        """
        async with self._key(workflow_id, event_key) as changed:
            known = await self._events(workflow_id, event_key)
            event = next(
                (e for e in known if e.is_committed is None and e.payload == payload), None
            )
            if event is None:
                event = StoredEvent(
                    workflow_id=workflow_id,
                    event_key=event_key,
                    payload=payload,
                    number=known[-1].number + 1 if known else 0,
                )
                await self._in_thread(self._store.write_event, event)
                changed.notify_all()
            try:
                async with asyncio.timeout(wait_s):
                    while True:
                        events = await self._events(workflow_id, event_key)
                        current = next((e for e in events if e.number == event.number), event)
                        if current.is_committed is not None:
                            return _FATES[current.is_committed]
                        await changed.wait()
            except TimeoutError:
                await self._promise(event)
                return "stored"

    async def _promise(self, event: StoredEvent) -> None:
        for current in await self._events(event.workflow_id, event.event_key):
            if current.number == event.number and not current.is_promised:
                promised = replace(current, is_promised=True)
                await self._in_thread(self._store.write_event, promised)

    async def wait(self, workflow_id: str, event_key: str, task_id: str) -> Any:
        """The payload of the next event under the key that no other task got."""
        async with self._key(workflow_id, event_key) as changed:
            while True:
                events = await self._events(workflow_id, event_key)
                for event in events:
                    if event.consumer == task_id:
                        return event.payload
                for event in events:
                    if event.consumer is None:
                        taken = replace(event, consumer=task_id)
                        await self._in_thread(self._store.write_event, taken)
                        return event.payload
                await changed.wait()

    async def take(self, workflow_id: str, event_key: str, *, epoch: int) -> Any:
        """The payload of the next event under the key, for a listener that names no task.

        It gets the same one again until it tells its fate. After a crash, which a later epoch
        shows, it gets the next one: whoever sent what the crashed run had got was not answered,
        and sends it again. Only if he was told that it is stored, it is given out again.
        """
        consumer = f"{_LISTENER}{epoch}"
        async with self._key(workflow_id, event_key) as changed:
            while True:
                for event in await self._events(workflow_id, event_key):
                    if event.is_committed is not None:
                        continue
                    if event.consumer == consumer:
                        return event.payload
                    was_listeners = event.consumer is not None and _is_listener(event.consumer)
                    if was_listeners and not event.is_promised:
                        refused = replace(event, is_committed=False)
                        await self._in_thread(self._store.write_event, refused)
                        changed.notify_all()
                    elif was_listeners or event.consumer is None:
                        taken = replace(event, consumer=consumer)
                        await self._in_thread(self._store.write_event, taken)
                        return event.payload
                await changed.wait()

    async def report(self, workflow_id: str, event_key: str, is_committed: bool) -> None:
        """Tell the fate of the event that was given out first and has none.

        :raises WorkflowEventHandleError: when none was given out under the key.
        """
        async with self._key(workflow_id, event_key) as changed:
            events = await self._events(workflow_id, event_key)
            if not any(event.consumer for event in events):
                raise WorkflowEventHandleError(
                    workflow_id, f"no event was given out under the key {event_key!r}."
                )
            for event in events:
                if event.consumer is not None and event.is_committed is None:
                    told = replace(event, is_committed=is_committed)
                    await self._in_thread(self._store.write_event, told)
                    changed.notify_all()
                    return

    @asynccontextmanager
    async def _key(self, workflow_id: str, event_key: str) -> AsyncIterator[asyncio.Condition]:
        """The condition of one key, held; forgotten with its last user."""
        name = (workflow_id, event_key)
        changed = self._changed.setdefault(name, asyncio.Condition())
        self._users[name] = self._users.get(name, 0) + 1
        try:
            async with changed:
                yield changed
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._changed[name]

    async def _events(self, workflow_id: str, event_key: str) -> list[StoredEvent]:
        return await self._in_thread(self._store.read_events, workflow_id, event_key)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _is_listener(consumer: str) -> bool:
    return consumer.startswith(_LISTENER)
