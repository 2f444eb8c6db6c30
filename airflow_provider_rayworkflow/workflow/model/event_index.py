"""Which event is given to which task, and when one more is refused. Pure: no storage, no waiting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.model.event_posts import (
    MAX_PER_KEY_VARIABLE,
    MAX_PER_WORKFLOW_VARIABLE,
    EventSettings,
)

# Before the epoch of a listener that names no task. No id of a task has a space.
_LISTENER = "listener of epoch "


def listener_of(epoch: int) -> str:
    """The consumer that a listener is which names no task."""
    return f"{_LISTENER}{epoch}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EventState:
    """What became of an event; all that is known of it but its payload.

    :ivar number: counts the events that came under the key.
    :ivar digest: the same for equal payloads.
    :ivar consumer: the task that got it, and gets it again after a crash; None for none yet.
    :ivar is_committed: True once that task's result is checkpointed, False if its listener
        refused it, None before.
    :ivar is_promised: its sender was told that it is stored, and so need not send it again.
    """

    number: int
    digest: str
    consumer: str | None = None
    is_committed: bool | None = None
    is_promised: bool = False


class KeyEvents:
    """The events of one key. Each question takes the same time, however many there are.

    Of acknowledged events, only what later questions need is kept.
    """

    def __init__(self, states: Iterable[EventState] = ()) -> None:
        self._open: dict[int, EventState] = {}
        self._free: dict[int, None] = {}
        self._given: dict[int, None] = {}
        self._by_digest: dict[str, int] = {}
        self._by_consumer: dict[str, int] = {}
        self._last = -1
        for state in sorted(states, key=lambda state: state.number):
            self.put(state)

    def put(self, state: EventState) -> None:
        """Take note of an event, or of what became of it."""
        number = state.number
        self._last = max(self._last, number)
        if state.consumer is not None:
            self._by_consumer.setdefault(state.consumer, number)
        if state.is_committed is not None:
            self._forget(number)
            return
        self._open[number] = state
        self._by_digest.setdefault(state.digest, number)
        if state.consumer is None:
            self._free[number] = None
        else:
            self._free.pop(number, None)
            self._given[number] = None

    def skip(self, number: int) -> None:
        """Take note that a number is used, by an event of another manager or a damaged one."""
        self._last = max(self._last, number)

    def drop(self, number: int) -> None:
        """Take note that an event has been deleted."""
        self._forget(number)
        for consumer in [name for name, n in self._by_consumer.items() if n == number]:
            del self._by_consumer[consumer]

    def _forget(self, number: int) -> None:
        known = self._open.pop(number, None)
        self._free.pop(number, None)
        self._given.pop(number, None)
        if known is not None and self._by_digest.get(known.digest) == number:
            del self._by_digest[known.digest]

    @property
    def next_number(self) -> int:
        return self._last + 1

    @property
    def waiting(self) -> int:
        """How many wait for their acknowledgement."""
        return len(self._open)

    def find_same(self, digest: str) -> int | None:
        """The number of an event with this payload that has not been acknowledged."""
        return self._by_digest.get(digest)

    def for_task(self, task_id: str) -> int | None:
        """The number of the event that a task gets: its own again, or the first free one."""
        own = self._by_consumer.get(task_id)
        return own if own is not None else next(iter(self._free), None)

    def for_listener(self, consumer: str) -> tuple[int | None, list[int]]:
        """The number of the event that a listener gets which names no task.

        It gets the same one again until it tells its fate. After a crash, which a later epoch
        shows, it gets the next one: the sender of what the crashed run had got was not answered,
        and sends it again. Only if the sender was told that it is stored, it is given out again.

        :returns: the number, and those that are refused for that reason.
        """
        refused: list[int] = []
        for number, state in self._open.items():
            was_listeners = state.consumer is not None and state.consumer.startswith(_LISTENER)
            if state.consumer == consumer or state.consumer is None:
                return number, refused
            if was_listeners and state.is_promised:
                return number, refused
            if was_listeners:
                refused.append(number)
        return None, refused

    def to_report(self) -> int | None:
        """The number of the event that was given out first and has no fate."""
        return next(iter(self._given), None)

    @property
    def was_given_out(self) -> bool:
        return bool(self._by_consumer)


class WorkflowEvents:
    """The events of one workflow, by key.

    :param states: each with its key.
    """

    def __init__(self, states: Iterable[tuple[str, EventState]] = ()) -> None:
        self._keys: dict[str, KeyEvents] = {}
        self._waiting = 0
        for event_key, state in sorted(states, key=lambda item: item[1].number):
            self.put(event_key, state)

    def of(self, event_key: str) -> KeyEvents:
        """The events of a key. Change them by the methods of this object only."""
        return self._keys.get(event_key) or KeyEvents()

    def put(self, event_key: str, state: EventState) -> None:
        """Take note of an event of a key, or of what became of it."""
        events = self._keys.setdefault(event_key, KeyEvents())
        self._waiting -= events.waiting
        events.put(state)
        self._waiting += events.waiting

    def drop(self, event_key: str, number: int) -> None:
        """Take note that an event of a key has been deleted."""
        events = self.of(event_key)
        self._waiting -= events.waiting
        events.drop(number)
        self._waiting += events.waiting

    def skip(self, event_key: str, number: int) -> None:
        """Take note that a number of a key is used, by an event that is unknown here."""
        self._keys.setdefault(event_key, KeyEvents()).skip(number)

    def refusal(self, event_key: str, settings: EventSettings, *, adding: int = 0) -> str:
        """Why one more event can't be taken now; ``""`` if it can.

        :param adding: how many are being stored at the moment, under whatever key.
        """
        waits = "events wait for their acknowledgement already. Send it again later."
        if self.of(event_key).waiting >= settings.max_per_key:
            return f"{settings.max_per_key} events of this key ({MAX_PER_KEY_VARIABLE}) {waits}"
        if self._waiting + adding >= settings.max_per_workflow:
            return (
                f"{settings.max_per_workflow} events of this workflow "
                f"({MAX_PER_WORKFLOW_VARIABLE}) {waits}"
            )
        return ""


def digest_of(payload: Any) -> str:
    """A text that is the same for equal JSON."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
