"""The entries of the cache: results of tasks that outlive their workflows. Nothing here unpickles.

What can't be read, is not whole, not signed with a key of this process, of another key or too old is no entry:
the task runs then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    dump_frame,
    load_frames,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import or_environment
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.records import Blob, Encoding, Form, Result
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put
from airflow_provider_rayworkflow.workflow.storage.cached_keys import (
    CACHE,
    CachedFile,
    cache_folder,
    parse_cached_file,
)
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

# So many entries of one key are tried: two of one key are rare, and one that is damaged is replaced by the next run.
_MOST_TRIED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheEntry:
    """A result in the cache.

    :ivar function: module and name of the task's function.
    :ivar result: its value; a large one lies beside the entry.
    """

    file: CachedFile
    function: str
    source: CacheSource
    result: Result


class CacheEntries:
    """The entries of the cache of one storage. Calls block.

    :param store: also says how documents are signed.
    """

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store

    # ---- one result

    def list_of(self, key: str) -> list[CachedObject]:
        """All objects of one result. One listing.

        :raises StorageError: when it can't be listed.
        """
        return list(self._list(cache_folder(key)))

    def find(
        self, objects: Iterable[CachedObject], *, now: float, max_age_s: float | None
    ) -> Iterator[CacheEntry]:
        """The entries that count, the latest first; a read for each.

        :param objects: of the folder of its key.
        :param now: in seconds since the epoch. An entry of a time to come is of a clock that is wrong by that much.
        :raises StorageError: when the storage can't be read now.
        """
        files = [one.file for one in objects if one.file is not None]
        sizes = {file.path: file.size for file in files}
        entries = sorted((file for file in files if file.kind == "entry"), reverse=True)
        for file in entries[:_MOST_TRIED]:
            if max_age_s is not None and abs(now - file.made_at) > max_age_s + 1:
                continue  # the name has whole seconds
            entry = self._read_believed(file)
            if entry is None or not _is_young(entry, now, max_age_s):
                continue
            blob = entry.result.blob
            if blob is None or sizes.get(blob.key) == blob.size:
                yield entry
                continue
            log.warning(
                "An entry of the cache does not count: its large value %s is torn", blob.key
            )

    def _read_believed(self, file: CachedFile) -> CacheEntry | None:
        try:
            return self.read(file)
        except KeyNotFoundError:
            return None  # evicted since the listing
        except DataLoadError as exc:
            if exc.is_transient:
                raise
            log.warning("An entry of the cache does not count: %s", exc)
            return None

    def read(self, file: CachedFile) -> CacheEntry:
        """An entry. One read.

        :raises KeyNotFoundError: when it is gone.
        :raises DataLoadError: when it is not whole, or nothing of it is believed.
        """
        path = file.path
        body, frames = load_frames(
            path, "cache", self._store.bytes.get(path), signing=self._store.signing
        )
        with understanding(path, "cache"):
            _, payload = next(frames)
            if body["key"] != file.key or body["form"] != Form.VALUE:
                raise ValueError(f"it is of the key {body['key']!r:.100}")
            blob = body["blob"]
            return CacheEntry(
                file=file,
                function=_text(body["function"]),
                source=CacheSource.from_json(body["source"]),
                result=Result(
                    encoding=Encoding(body["encoding"]),
                    inline=None if blob else bytes(payload),
                    blob=_blob_of(blob, file) if blob else None,
                ),
            )

    def give(self, entry: CacheEntry, workflow_id: str, *, epoch: int, task_id: str) -> Result:
        """The result of an entry for a task of another workflow, which keeps it when the entry is evicted.

        A large value is read once, piece by piece, to see that it is whole.

        :raises CorruptedDataError: when the large value is missing or not whole.
        :raises StorageError: when it can't be read or copied.
        """
        values, result = self._store.values, entry.result
        if result.blob is None:
            return result
        # What is signed is read and checked as it is copied.
        if not or_environment(self._store.signing) and (damage := values.find_damage(result)):
            raise damage
        blob = values.copy(result.blob, workflow_id, epoch=epoch, task_id=task_id)
        return result._replace(blob=blob)

    def entry_put(
        self, key: str, function: str, source: CacheSource, result: Result, *, expires_at: float
    ) -> Put:
        """The write that puts a committed value into the cache, in an entry of its own; a large one is copied now.

        :param expires_at: in seconds since the epoch; 0 for never.
        :raises StorageError: when the copy fails.
        """
        token = secrets.token_hex(8)
        file = CachedFile(int(source.made_at), int(expires_at), token, "entry", key)
        blob = result.blob
        if blob is not None:
            blob = self._store.values.copy_to(blob, file.value_path)
        body = {
            "key": key,
            "function": function,
            "source": source.to_json(),
            "form": result.form.value,
            "encoding": result.encoding.value,
            "blob": astuple(blob) if blob else None,
        }
        frame = dump_frame({}, [result.inline or b""] if blob is None else [])
        document = dump_document(file.path, "cache", body, frame, signing=self._store.signing)
        return Put(file.path, document)

    # ---- all

    def list_all(self) -> Iterator[CachedObject]:
        """All objects of the cache, in any order. One listing."""
        return self._list(CACHE)

    def _list(self, folder: str) -> Iterator[CachedObject]:
        for entry in self._store.bytes.list(folder):
            if entry.problem is None:
                yield CachedObject(entry.key, parse_cached_file(entry.key, entry.size))

    def delete(self, files: Iterable[CachedFile]) -> None:
        """Delete entries with their large values.

        :raises DataSaveError: when one can't be deleted.
        """
        for file in files:
            # A reader that has the entry finds its value, or sees that it is missing.
            self._store.bytes.delete([file.path, file.value_path])


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object of the cache.

    :ivar file: what its name says; None for a claim and for a foreign file.
    """

    key: str
    file: CachedFile | None


def _is_young(entry: CacheEntry, now: float, max_age_s: float | None) -> bool:
    return max_age_s is None or abs(now - entry.source.made_at) <= max_age_s


def _blob_of(value: Any, file: CachedFile) -> Blob:
    blob = well_typed(Blob(**dict(zip(_BLOB, value, strict=True))))
    if blob.key != file.value_path:
        raise ValueError(f"its large value is {blob.key!r:.200}")
    return blob


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r:.100} is no text")
    return value


_BLOB = tuple(field.name for field in fields(Blob))
