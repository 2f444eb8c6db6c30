"""Large values: results that have an object of their own. Nothing here unpickles."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    check_frame,
    document_size,
    dump_document,
    dump_frame,
    load_frames,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.model.records import Blob, Form, Result
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

_Buffer = bytes | bytearray | memoryview

#: So many bytes are hashed in about a millisecond: a thread would not gain anything.
_FEW_BYTES = 1024 * 1024


class ValueStore:
    """Large values on one storage root.

    :param signing: as for :class:`WorkflowStore`.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self._bytes = store
        self._signing = signing

    def write(
        self,
        workflow_id: str,
        *,
        epoch: int,
        task_id: str,
        attempt: int,
        parts: Sequence[_Buffer],
    ) -> Blob:
        """Write a large value; one write. Called by the worker that made it.

        :param attempt: of the task; with it the object has a key of its own.
        :param parts: the value's bytes, in pieces.
        :raises DataSaveError: when it can't be written.
        """
        body, frame = {"task": task_id}, dump_frame({}, parts)
        size = document_size("value", body, frame, signing=self._signing)
        key = keys.value_key(workflow_id, epoch, task_id, attempt, size)
        hashing = _hash_beside(parts)
        self._bytes.put(key, dump_document(key, "value", body, frame, signing=self._signing))
        return Blob(key=key, size=size, sum=hashing())

    def copy(self, blob: Blob, workflow_id: str, *, epoch: int, task_id: str) -> Blob:
        """Give a large value to another workflow, too, which keeps it when this one is deleted.

        :raises CorruptedDataError: when it is missing.
        """
        return self.copy_to(blob, keys.value_key(workflow_id, epoch, task_id, 0, blob.size))

    def copy_to(self, blob: Blob, key: str) -> Blob:
        """Let an object of another key have the same large value.

        :raises CorruptedDataError: when it is missing.
        """
        try:
            if or_environment(self._signing):  # a signature is good for one key
                self._bytes.put(key, self._signed_anew(blob, key))
            else:
                self._bytes.copy(blob.key, key)
        except KeyNotFoundError as exc:
            raise CorruptedDataError(blob.key, "it is missing") from exc
        return Blob(key=key, size=blob.size, sum=blob.sum)

    def _signed_anew(self, blob: Blob, key: str) -> tuple[_Buffer, ...]:
        body, frames = load_frames(
            blob.key, "value", self._bytes.get(blob.key), signing=self._signing
        )
        content = [part for header, data in frames for part in dump_frame(header, [data])]
        return dump_document(key, "value", body, content, signing=self._signing)

    def read(self, blob: Blob) -> memoryview:
        """Read a large value's bytes.

        :raises CorruptedDataError: when it is missing, torn or changed.
        """
        try:
            data = self._bytes.get(blob.key)
        except KeyNotFoundError as exc:
            raise CorruptedDataError(blob.key, "it is missing") from exc
        _, frames = load_frames(blob.key, "value", data, signing=self._signing)
        for _, payload in frames:
            return payload
        raise CorruptedDataError(blob.key, "it is empty")

    def read_json(self, result: Result) -> Any:
        """A JSON result's value as ``get_output`` gives it; nothing is unpickled.

        ``[value, None]`` where the task catches exceptions.

        :param result: its encoding is JSON.
        :raises CorruptedDataError: when its large value is missing, torn or changed.
        :raises ValueError: when its bytes are no JSON.
        :raises RecursionError: when it is nested too deep for this process.
        """
        data = (result.inline or b"") if result.blob is None else self.read(result.blob)
        value = json.loads(bytes(data))
        return [value, None] if result.form is Form.CAUGHT_VALUE else value

    def find_damage(self, result: Result) -> CorruptedDataError | None:
        """What is wrong with a result's large value, None if it is whole. Reads it piece by piece."""
        blob = result.blob
        if blob is None:
            return None
        try:
            check_frame(
                blob.key, "value", blob.size, lambda start, n: self._bytes.get(blob.key, start, n)
            )
        except KeyNotFoundError:
            return CorruptedDataError(blob.key, "it is missing")
        except CorruptedDataError as exc:
            return exc
        return None


def _hash_beside(parts: Sequence[_Buffer]) -> Callable[[], str]:
    """Hash a value while it is written: by its hash it is told from all others, which a checksum would not do.

    :returns: waits for the hash: half of a SHA-256 and the length.
    """
    size = sum(memoryview(part).nbytes for part in parts)
    digest = hashlib.sha256()

    def run() -> None:
        for part in parts:
            digest.update(part)

    if size <= _FEW_BYTES:
        run()
        return lambda: f"{digest.hexdigest()[:32]}-{size}"
    thread = threading.Thread(target=run, name="hash of a value")  # hashlib lets other threads run
    thread.start()

    def wait() -> str:
        thread.join()
        return f"{digest.hexdigest()[:32]}-{size}"

    return wait
