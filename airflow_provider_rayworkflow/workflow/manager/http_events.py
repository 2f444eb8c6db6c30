"""Events that come by HTTP: stored when they come, given to the task that waits, acknowledged.

Kept by the manager, so that neither the Serve replica that takes them nor a listener holds state.
What is done with an event is decided by :mod:`.event_index`; this module reads, writes and waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor as ThreadPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import StorageError, WorkflowEventHandleError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.event_index import (
    EventState,
    KeyEvents,
    WorkflowEvents,
    digest_of,
    listener_of,
)
from airflow_provider_rayworkflow.workflow.model.event_posts import (
    EARLY_VARIABLE,
    EventSettings,
    RefusedPostError,
    check_event_key,
)
from airflow_provider_rayworkflow.workflow.offline.orphans import delete_orphaned_events
from airflow_provider_rayworkflow.workflow.storage.events import StoredEvent
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

T = TypeVar("T")

#: What became of an event: a workflow has checkpointed it; its listener refused it; it is
#: stored, and waits for that.
Fate = Literal["committed", "refused", "stored"]

#: Whether a workflow can get an event: it can; it has ended for good; there is no such workflow.
Reception = Literal["open", "ended", "unknown"]

# The events of so many workflows are remembered while none is posted or waited for.
_MAX_IDLE = 256
# What another process may have deleted is looked at again before an event is refused.
_RELOAD_INTERVAL_S = 1.0
_MAX_SWEEP_INTERVAL_S = 3600.0


@dataclass(slots=True, eq=False)
class _Key:
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    users: int = 0
    #: What posters of an event wait for, by its number.
    fates: dict[int, asyncio.Future[Fate]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Workflow:
    """What is remembered of the events of one workflow."""

    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    events: WorkflowEvents | None = None
    loaded_at: float = 0.0
    adding: int = 0
    keys: dict[str, _Key] = field(default_factory=dict)


class HttpEvents:
    """The events of all workflows.

    :param threads: where storage calls block.
    :param reception: tells whether a workflow can get an event.
    :param settings: limits; by default those of :class:`EventSettings`.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: WorkflowStore,
        threads: ThreadPool,
        *,
        reception: Callable[[str], Awaitable[Reception]],
        settings: EventSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = store.events
        self._threads = threads
        self._reception = reception
        self._settings = settings or EventSettings()
        self._clock = clock
        self._workflows: OrderedDict[str, _Workflow] = OrderedDict()
        self._swept_at = 0.0

    async def settings(self) -> EventSettings:
        """How events are taken, with the token; it is made and stored where none is given."""
        if self._settings.token is None:
            token = await self._in_thread(self._events.token)
            self._settings = replace(self._settings, token=token)
        return self._settings

    def forget(self, workflow_id: str) -> None:
        """Read the events of a workflow again before the next use."""
        if (known := self._workflows.get(workflow_id)) is not None:
            known.events = None

    # ---- for posters

    async def post(self, workflow_id: str, event_key: str, payload: Any, *, wait_s: float) -> Fate:
        """Store an event, then wait for its fate.

        The same payload again, while the first one is not acknowledged, is the same event.

        :param wait_s: how long to wait for the workflow, in seconds.
        :raises RefusedPostError: 404 for an unknown workflow, 409 for one that has ended, 429 when
            too many events wait.
        """
        await self._check_reception(workflow_id)
        with self._key(workflow_id, event_key) as key:
            async with key.changed:
                number = await self._find_same(workflow_id, event_key, digest_of(payload))
                if number is None:
                    number = await self._add(workflow_id, event_key, payload)
                    key.changed.notify_all()
                fate = key.fates.setdefault(number, asyncio.get_running_loop().create_future())
            try:
                async with asyncio.timeout(wait_s):
                    return await asyncio.shield(fate)
            except TimeoutError:
                async with key.changed:
                    return await self._promise(workflow_id, event_key, number)

    async def _check_reception(self, workflow_id: str) -> None:
        reception = await self._reception(workflow_id)
        if reception == "ended":
            raise RefusedPostError(
                409, f"Workflow {workflow_id!r} has ended, so no task of it can get the event."
            )
        if reception == "open":
            return
        if not self._settings.early_s:
            raise RefusedPostError(
                404,
                f"There is no workflow {workflow_id!r}. Start it first, or set {EARLY_VARIABLE} for "
                "the cluster's nodes to have events kept that come before.",
            )
        await self._sweep()

    async def _sweep(self) -> None:
        """Delete early events whose workflow has not come in time. Not at every call."""
        now = self._clock()
        interval = min(self._settings.early_s, _MAX_SWEEP_INTERVAL_S)
        if 0 <= now - self._swept_at < interval:
            return
        self._swept_at = now
        for workflow_id in [name for name, known in self._workflows.items() if not known.keys]:
            del self._workflows[workflow_id]
        try:
            before = now - self._settings.early_s
            await self._in_thread(delete_orphaned_events, self._store, before)
        except StorageError as exc:
            log.warning("Events of unknown workflows could not be deleted: %s", exc)

    async def _find_same(self, workflow_id: str, event_key: str, digest: str) -> int | None:
        events = await self._load(workflow_id)
        number = events.of(event_key).find_same(digest)
        if number is None or await self._read(workflow_id, event_key, number) is not None:
            return number
        return None

    async def _add(self, workflow_id: str, event_key: str, payload: Any) -> int:
        await self._check_room(workflow_id, event_key)
        known = self._workflows[workflow_id]
        known.adding += 1
        try:
            while True:
                events = await self._load(workflow_id)
                event = StoredEvent(
                    workflow_id=workflow_id,
                    event_key=event_key,
                    payload=payload,
                    number=events.of(event_key).next_number,
                    posted_at=self._clock(),
                )
                if await self._in_thread(self._events.add, event):
                    (await self._load(workflow_id)).put(event_key, _state(event))
                    return event.number
                # Another manager has stored one under this number, or it is damaged.
                self.forget(workflow_id)
                (await self._load(workflow_id)).skip(event_key, event.number)
        finally:
            known.adding -= 1

    async def _check_room(self, workflow_id: str, event_key: str) -> None:
        known = self._workflows[workflow_id]
        for again in (False, True):
            events = await self._load(workflow_id, again=again)
            refusal = events.refusal(event_key, self._settings, adding=known.adding)
            if not refusal:
                return
        raise RefusedPostError(429, refusal, {"retry-after": "10"})

    async def _promise(self, workflow_id: str, event_key: str, number: int) -> Fate:
        event = await self._read(workflow_id, event_key, number)
        if event is None or event.is_committed is None:
            if event is not None and not event.is_promised:
                await self._write(replace(event, is_promised=True))
            return "stored"
        return _fate(event.is_committed)

    # ---- for tasks

    async def wait(self, workflow_id: str, event_key: str, task_id: str) -> Any:
        """The payload of the next event under the key that no other task got.

        :raises ValueError: when no event can have the key.
        """
        check_event_key(event_key)
        with self._key(workflow_id, event_key) as key:
            async with key.changed:
                while True:
                    number = (await self._of(workflow_id, event_key)).for_task(task_id)
                    if number is None:
                        await key.changed.wait()
                        continue
                    event = await self._read(workflow_id, event_key, number)
                    if event is not None and event.consumer is None:
                        await self._write(replace(event, consumer=task_id))
                    if event is not None and event.consumer in (None, task_id):
                        return event.payload

    async def take(self, workflow_id: str, event_key: str, *, epoch: int) -> Any:
        """The payload of the next event under the key, for a listener that names no task.

        See :meth:`KeyEvents.for_listener`.

        :raises ValueError: when no event can have the key.
        """
        check_event_key(event_key)
        consumer = listener_of(epoch)
        with self._key(workflow_id, event_key) as key:
            async with key.changed:
                while True:
                    events = await self._of(workflow_id, event_key)
                    number, refused = events.for_listener(consumer)
                    for one in refused:
                        await self._tell(key, workflow_id, event_key, one, is_committed=False)
                    if number is None:
                        await key.changed.wait()
                        continue
                    event = await self._read(workflow_id, event_key, number)
                    if event is None:
                        continue
                    if event.consumer != consumer:
                        await self._write(replace(event, consumer=consumer))
                    return event.payload

    async def report(self, workflow_id: str, event_key: str, is_committed: bool) -> None:
        """Tell the fate of the event that was given out first and has none.

        :raises WorkflowEventHandleError: when none was given out under the key.
        """
        with self._key(workflow_id, event_key) as key:
            async with key.changed:
                events = await self._of(workflow_id, event_key)
                if not events.was_given_out:
                    raise WorkflowEventHandleError(
                        workflow_id, f"no event was given out under the key {event_key!r}."
                    )
                number = events.to_report()
                if number is not None:
                    await self._tell(key, workflow_id, event_key, number, is_committed=is_committed)

    async def _tell(
        self, key: _Key, workflow_id: str, event_key: str, number: int, *, is_committed: bool
    ) -> None:
        event = await self._read(workflow_id, event_key, number)
        if event is not None and event.is_committed is None:
            await self._write(replace(event, is_committed=is_committed))
        fate = key.fates.pop(number, None)
        if fate is not None and not fate.done():
            fate.set_result(_fate(is_committed))

    # ---- what is remembered

    @contextmanager
    def _key(self, workflow_id: str, event_key: str) -> Iterator[_Key]:
        """One key; it is forgotten with its last user."""
        known = self._workflows.setdefault(workflow_id, _Workflow())
        self._workflows.move_to_end(workflow_id)
        key = known.keys.setdefault(event_key, _Key())
        key.users += 1
        try:
            yield key
        finally:
            key.users -= 1
            if not key.users:
                del known.keys[event_key]
            self._shrink()

    def _shrink(self) -> None:
        if len(self._workflows) <= _MAX_IDLE:
            return
        idle = [name for name, known in self._workflows.items() if not known.keys]
        for workflow_id in idle[: len(self._workflows) - _MAX_IDLE]:
            del self._workflows[workflow_id]

    async def _of(self, workflow_id: str, event_key: str) -> KeyEvents:
        return (await self._load(workflow_id)).of(event_key)

    async def _load(self, workflow_id: str, *, again: bool = False) -> WorkflowEvents:
        known = self._workflows[workflow_id]
        async with known.loading:
            is_old = again and time.monotonic() - known.loaded_at > _RELOAD_INTERVAL_S
            if known.events is None or is_old:
                stored = await self._in_thread(self._events.read_all, workflow_id)
                known.events = WorkflowEvents((e.event_key, _state(e)) for e in stored)
                known.loaded_at = time.monotonic()
            return known.events

    async def _read(self, workflow_id: str, event_key: str, number: int) -> StoredEvent | None:
        """An event that is remembered; None when it has been deleted meanwhile."""
        event = await self._in_thread(self._events.read, workflow_id, event_key, number)
        events = await self._load(workflow_id)
        if event is None:
            events.drop(event_key, number)
        else:
            events.put(event_key, _state(event))
        return event

    async def _write(self, event: StoredEvent) -> None:
        await self._in_thread(self._events.write, event)
        (await self._load(event.workflow_id)).put(event.event_key, _state(event))

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _state(event: StoredEvent) -> EventState:
    return EventState(
        number=event.number,
        digest=digest_of(event.payload),
        consumer=event.consumer,
        is_committed=event.is_committed,
        is_promised=event.is_promised,
    )


def _fate(is_committed: bool) -> Fate:
    return "committed" if is_committed else "refused"
