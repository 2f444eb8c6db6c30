"""What is done to the cache as a whole: list it, drop results, keep it within a size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.cache_claims import CacheClaims
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CacheEntries, CacheEntry
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CachedFile, parse_cache_claim
from airflow_provider_rayworkflow.workflow.storage.status_documents import Report
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

# Of results of the same minute, any go first.
_MINUTE_S = 60
_FEW = 50
# So much of the limit is left free, so that not each result makes an older one go.
_FREE_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedResult:
    """A result in the cache, as it is shown.

    :ivar size: in bytes, with its large value.
    :ivar entry: None for one that can't be read.
    """

    file: CachedFile
    size: int
    entry: CacheEntry | None = None

    def is_of(self, task: str) -> bool:
        """True for a result of a task: its function with or without the module, or the id that it had."""
        if self.entry is None:
            return False
        function = self.entry.function
        return task in (function, self.entry.source.task_id) or function.endswith(f".{task}")


def list_results(
    store: WorkflowStore,
    *,
    now: float,
    task: str = "",
    older_than_s: float = 0.0,
    report: Report,
) -> list[CachedResult]:
    """The results in the cache, the latest first; one listing, and a read for each.

    :param now: in seconds since the epoch.
    :param task: only those of it; ``""`` for all.
    :param older_than_s: only those made longer ago, in seconds.
    :param report: told of those that can't be read.
    """
    entries = CacheEntries(store)
    values: Counter[str] = Counter()
    files: list[CachedFile] = []
    for one in entries.list_all():
        if one.file is not None and one.file.kind == "value":
            values[one.key] = one.file.size
        elif one.file is not None and (not older_than_s or now - one.file.made_at >= older_than_s):
            files.append(one.file)

    def read(file: CachedFile) -> CachedResult:
        entry = None
        try:
            entry = entries.read(file)
        except KeyNotFoundError:
            pass  # dropped since the listing
        except DataLoadError as exc:
            report(exc)
        size = file.size + values[file.value_path]
        return CachedResult(file=file, size=size, entry=entry)

    found = map_at_once(store.bytes, read, sorted(files, reverse=True))
    return [one for one in found if not task or one.is_of(task)]


def drop_results(store: WorkflowStore, results: Sequence[CachedResult]) -> None:
    """Delete results; workflows that have taken them keep what they took.

    :raises DataSaveError: when one can't be deleted.
    """
    CacheEntries(store).delete(one.file for one in results)


def evict_few_by_few(
    store: WorkflowStore, *, max_bytes: int, now: float
) -> Iterator[tuple[int, int]]:
    """Delete what has expired, and of the rest the oldest, until the cache has nine tenths of a size.

    Also the claims of managers that are gone. Two listings; what it takes of memory follows the minutes
    in which results were made, and not their number.

    :param max_bytes: nothing else than what has expired goes while the cache is smaller.
    :param now: in seconds since the epoch.
    :returns: after each few deletions how many they were, and of how many bytes; ends when the rest may stay.
    """
    entries = CacheEntries(store)
    sizes: Counter[int] = Counter()
    for one in entries.list_all():
        if one.file is not None and not _has_expired(one.file, now):
            sizes[one.file.made_at // _MINUTE_S] += one.file.size
    last, part = _evicted(sizes, max_bytes)
    claims: list[str] = []
    due = _due(entries, claims, last=last, part=part, now=now)
    while few := list(islice(due, _FEW)):
        entries.delete(few)
        yield len(few), sum(file.size for file in few)
    _delete_lost(store, claims)


def _evicted(sizes: Counter[int], max_bytes: int) -> tuple[int, int]:
    """The last minute of which results go, and how many bytes of it; all those before it go."""
    too_much = sum(sizes.values()) - int(max_bytes * (1 - _FREE_SHARE))
    if sum(sizes.values()) <= max_bytes:
        return -1, 0
    for minute in sorted(sizes):
        if too_much <= sizes[minute]:
            return minute, too_much
        too_much -= sizes[minute]
    return -1, 0


def _due(
    entries: CacheEntries, claims: list[str], *, last: int, part: int, now: float
) -> Iterator[CachedFile]:
    """What is deleted now; claims are added to a list."""
    for one in entries.list_all():
        if (file := one.file) is None:
            if parse_cache_claim(one.key):
                claims.append(one.key)
            continue
        minute = file.made_at // _MINUTE_S
        if minute == last and part > 0:
            part -= file.size
            yield file
        elif minute < last or _has_expired(file, now):
            yield file


def _has_expired(file: CachedFile, now: float) -> bool:
    return 0 < file.expires_at < now


def _delete_lost(store: WorkflowStore, claims: Sequence[str]) -> None:
    """Delete those claims whose managers are gone."""
    known, look = CacheClaims(store, ""), StatusReader(store, patient=True).look()
    store.bytes.delete([claim for claim in claims if not known.is_held(claim, look)])
