"""What a manager's cache asks of the storage, for several results at once. Calls block, in any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    StorageError,
    said_by,
)
from airflow_provider_rayworkflow.workflow.execution.cache_requests import Cached, CacheRequest
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.codec import json_output
from airflow_provider_rayworkflow.workflow.model.records import Encoding, JsonOutput, Result
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put, buffers
from airflow_provider_rayworkflow.workflow.storage.cache_claims import CacheClaims
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CachedObject, CacheEntries
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook, StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


class Asked(NamedTuple):
    """A result that is asked for.

    :ivar claim: of this manager on it, ``""`` for none.
    """

    key: str
    claim: str
    requests: Sequence[CacheRequest]


class CacheLook(NamedTuple):
    """What a look into the storage found of one result.

    :ivar found: by request.
    :ivar claim: of this manager, ``""`` for none.
    :ivar is_elsewhere: another manager computes it.
    """

    found: Mapping[CacheRequest, Cached]
    claim: str = ""
    is_elsewhere: bool = False


class Kept(NamedTuple):
    """A committed result that is put into the cache."""

    request: CacheRequest
    result: Result
    source: CacheSource

    @property
    def size(self) -> int:
        """How many bytes of memory it takes, about."""
        return len(self.result.inline or b"") + 500


class CacheCalls:
    """The storage's part of :class:`.ResultCache`.

    :param clock: seconds since the epoch.
    """

    def __init__(
        self, store: WorkflowStore, *, manager_id: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._entries = CacheEntries(store)
        self._claims = CacheClaims(store, manager_id)
        self._statuses = StatusReader(store, clock, patient=True)
        self._has_warned = False

    # ---- looking

    def look(self, asked: Sequence[Asked]) -> list[CacheLook]:
        """What the storage has of several results, and claims on those that are missing.

        Where the storage fails, a result counts as missing, with one warning until it works again.
        """
        managers = self._statuses.look()
        looks: list[CacheLook] = []
        claims: dict[int, Put] = {}
        problem: BaseException | None = None
        for one in asked:
            try:
                look, claim = self._look_at(one, managers)
            except StorageError as exc:
                problem = exc
                look, claim = CacheLook({}, one.claim), None
            if claim is not None:
                claims[len(looks)] = claim
            looks.append(look)
        self._store.bytes.put_all(list(claims.values()))
        for index, put in claims.items():
            try:
                looks[index] = self._claimed(asked[index], looks[index], put)
            except StorageError as exc:
                problem = exc
                looks[index] = looks[index]._replace(claim=put.key)
        if problem is not None and not self._has_warned:
            log.warning("The cache can't be used, so tasks run: %s", said_by(problem))
        self._has_warned = problem is not None
        return looks

    def _look_at(self, asked: Asked, managers: StatusLook) -> tuple[CacheLook, Put | None]:
        """What is found of a result, and the claim on it where it has to be computed."""
        objects = self._entries.list_of(asked.key)
        found = self._find(asked.requests, objects)
        if asked.claim or len(found) == len(asked.requests):
            return CacheLook(found, asked.claim), None
        claim = self._claims.claim_put(asked.key, objects, managers)
        return CacheLook(found, is_elsewhere=claim is None), claim

    def _claimed(self, asked: Asked, look: CacheLook, put: Put) -> CacheLook:
        if put.error is not None:
            raise put.error
        if not put.is_new:
            return look._replace(is_elsewhere=True)
        # It may have been computed, and the claim given back, between the listing and the claim.
        missing = [request for request in asked.requests if request not in look.found]
        found = self._find(missing, self._entries.list_of(asked.key))
        return CacheLook({**look.found, **found}, put.key)

    def _find(
        self, requests: Sequence[CacheRequest], objects: Sequence[CachedObject]
    ) -> dict[CacheRequest, Cached]:
        found = {}
        for request in requests:
            if (cached := self._cached(request, objects)) is not None:
                found[request] = cached
        return found

    def _cached(self, request: CacheRequest, objects: Sequence[CachedObject]) -> Cached | None:
        max_age_s = request.options.max_age_s
        for entry in self._entries.find(objects, now=self._clock(), max_age_s=max_age_s):
            try:
                result = self._entries.give(
                    entry, request.workflow_id, epoch=request.epoch, task_id=request.task_id
                )
                known = self._json_of(result) if request.wants_json else None
            except CorruptedDataError as exc:
                log.warning("An entry of the cache does not count: %s", exc)
                continue
            return Cached(result, entry.source, known)
        return None

    def _json_of(self, result: Result) -> JsonOutput | None:
        if result.encoding is not Encoding.JSON:
            return None
        return json_output(self._store.values.read_json(result))

    # ---- writing

    def write(self, kept: Sequence[Kept]) -> int:
        """Put results into the cache; what fails is left out, with a warning.

        :returns: how many bytes they take.
        """
        puts, size = [], 0
        problem: BaseException | None = None
        for request, result, source in kept:
            options = request.options
            expires_at = source.made_at + options.max_age_s + 1 if options.max_age_s else 0.0
            try:
                put = self._entries.entry_put(
                    request.key, options.function, source, result, expires_at=expires_at
                )
            except StorageError as exc:
                problem = exc
                continue
            puts.append(put)
            size += sum(memoryview(part).nbytes for part in buffers(put.data))
            size += result.blob.size if result.blob else 0
        self._store.bytes.put_all(puts)
        problem = next((put.error for put in puts if put.error is not None), problem)
        if problem is not None:
            log.warning("Results can't be put into the cache: %s", said_by(problem))
        return size

    def give_back(self, claims: Sequence[str]) -> None:
        """Delete claims.

        :raises DataSaveError: when that fails.
        """
        self._claims.give_back(claims)
