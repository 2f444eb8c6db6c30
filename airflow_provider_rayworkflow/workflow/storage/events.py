"""Events that came by HTTP, and the token that their senders need."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data

log = get_logger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEvent:
    """An event that came by HTTP.

    :ivar payload: any JSON.
    :ivar number: counts the events that came under the key.
    :ivar posted_at: seconds since the epoch.
    :ivar consumer: the task that got it, and gets it again after a crash; None for none yet.
    :ivar is_committed: True once that task's result is checkpointed, False if its listener
        refused it, None before.
    :ivar is_promised: its sender was told that it is stored, and so need not send it again.
    """

    workflow_id: str
    event_key: str
    payload: Any
    number: int
    posted_at: float
    consumer: str | None = None
    is_committed: bool | None = None
    is_promised: bool = False

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in self.__slots__}


class EventStore:
    """Stores events. Calls block.

    :param signing: the keys of the documents; None for those of the environment.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self._bytes = store
        self._signing = signing

    def add(self, event: StoredEvent) -> bool:
        """Store a new event; False if its number is taken by another manager's."""
        return self._bytes.put_if_absent(*self._document(event))

    def write(self, event: StoredEvent) -> None:
        """Store what became of an event."""
        self._bytes.put(*self._document(event))

    def read(self, workflow_id: str, event_key: str, number: int) -> StoredEvent | None:
        """One event; None when it has been deleted."""
        try:
            return self._load(keys.event_key(workflow_id, event_key, number))
        except KeyNotFoundError:
            return None

    def read_all(self, workflow_id: str) -> list[StoredEvent]:
        """The events of a workflow; those that can't be read are left out, and logged."""
        entries = self._bytes.list(keys.events_folder(workflow_id))
        found = [entry.key for entry in entries if keys.segment_of_event(entry.key) is not None]
        events = map_at_once(self._bytes, self._load_or_warn, found)
        return [event for event in events if event is not None]

    def delete_given_out(self, workflow_id: str) -> None:
        """Delete the events that a task has got: its workflow starts from scratch."""
        given = [event for event in self.read_all(workflow_id) if event.consumer is not None]
        if given:
            self._bytes.delete([_document_key(event) for event in given])

    def list_segments(self) -> dict[str, list[str]]:
        """The keys of all events, by the segment of their workflow's id."""
        segments: dict[str, list[str]] = {}
        for entry in self._bytes.list(keys.EVENTS):
            if (segment := keys.segment_of_event(entry.key)) is not None:
                segments.setdefault(segment, []).append(entry.key)
        return segments

    def delete_expired(self, event_keys: list[str], *, before: float) -> int:
        """Delete those that were posted before; returns how many. Damaged ones go, too."""
        expired = []
        for key in event_keys:
            try:
                if self._load(key).posted_at >= before:
                    continue
            except KeyNotFoundError:
                continue
            except CorruptedDataError as exc:
                log.warning("An event of an unknown workflow is deleted: %s", exc)
            expired.append(key)
        if expired:
            self._bytes.delete(expired)
        return len(expired)

    def token(self) -> str:
        """The generated token; made by the first who asks for it.

        :raises CorruptedDataError: when it is damaged.
        """
        key = keys.EVENT_TOKEN
        try:
            data = self._bytes.get(key)
        except KeyNotFoundError:
            made = {"token": secrets.token_urlsafe(32)}
            document = dump_document(key, "event_token", made, signing=self._signing)
            self._bytes.put_if_absent(key, document)
            data = self._bytes.get(key)
        with understanding(key, "event_token"):
            token = load_line(key, "event_token", data, signing=self._signing)["token"]
            if not isinstance(token, str) or not token:
                raise TypeError("the token is no text")
            return token

    def _load_or_warn(self, key: str) -> StoredEvent | None:
        try:
            return self._load(key)
        except KeyNotFoundError:
            return None
        except DataLoadError as exc:
            log.warning("An event can't be read and is left out: %s", exc)
            return None

    def _load(self, key: str) -> StoredEvent:
        body = load_line(key, "event", self._bytes.get(key), signing=self._signing)
        with understanding(key, "event"):
            return well_typed(StoredEvent(**body))

    def _document(self, event: StoredEvent) -> tuple[str, Data]:
        key = _document_key(event)
        return key, dump_document(key, "event", event.to_json(), signing=self._signing)


def _document_key(event: StoredEvent) -> str:
    return keys.event_key(event.workflow_id, event.event_key, event.number)
