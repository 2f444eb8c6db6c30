"""States that tasks save while they run: values as bytes. Nothing here unpickles."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    dump_frame,
    load_frames,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import Encoding
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.saved_versions import (
    SavedVersions,
    SavingAttempt,
)

# Not the package's logger, whose lines are no part of a task's log.
log = logging.getLogger("rayworkflow.saved")

_Buffer = bytes | bytearray | memoryview


class SavedStates:
    """The states of one task, as one of its attempts reads and writes them. One caller at a time.

    :param signing: as for :class:`WorkflowStore`.
    :ivar versions: of the state.
    """

    def __init__(
        self, store: ByteStore, attempt: SavingAttempt, *, signing: SigningKeys | None = None
    ) -> None:
        self.versions = SavedVersions(store, attempt, ("state",))
        self._store = store
        self._task_id = attempt.task_id
        self._signing = signing

    def write(self, encoding: Encoding, parts: Sequence[_Buffer]) -> None:
        """Write the next state; it is durable when this returns. Then earlier ones are deleted.

        :param parts: the state's bytes, in pieces.
        :raises OwnershipLostError: when a later run of the workflow has begun.
        :raises StorageError: when the state can't be written.
        """
        version = self.versions.begin()
        key = self.versions.name(version, "state").key
        frame = dump_frame({"encoding": encoding.value}, parts)
        body = {"task": self._task_id}
        self._store.put(key, dump_document(key, "state", body, frame, signing=self._signing))
        self.versions.end(version)

    def read(self) -> tuple[Encoding, bytearray] | None:
        """The latest state's bytes, which are the caller's to change; None without one.

        One that is damaged is named in a warning, and the one before counts.

        :raises StorageError: when it can't be read.
        """
        for _ in range(_MOST_LOOKS):
            try:
                return self._read()
            except KeyNotFoundError:  # an attempt that still runs elsewhere has saved a later one
                self.versions.forget()
        return self._read()

    def _read(self) -> tuple[Encoding, bytearray] | None:
        for file in self.versions.whole():
            try:
                return self._load(file.key)
            except CorruptedDataError as exc:
                log.warning("%s It is not used.", exc)
        return None

    def _load(self, key: str) -> tuple[Encoding, bytearray]:
        _, frames = load_frames(key, "state", self._store.get(key), signing=self._signing)
        for header, payload in frames:
            with understanding(key, "state"):
                return Encoding(header["encoding"]), bytearray(payload)
        raise CorruptedDataError(key, "it is empty")


_MOST_LOOKS = 10
