"""Claims on results: of two managers that want the same one, one computes it. Calls block.

A claim lasts as long as its manager's lease, and is deleted when the result is in the cache, or can't be. On a
storage that loses races (:attr:`.ByteStore.weakness`), both may compute.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CachedObject
from airflow_provider_rayworkflow.workflow.storage.cached_keys import (
    cache_claim_key,
    parse_cache_claim,
)
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


class CacheClaims:
    """The claims of one manager on results.

    :param manager_id: has a lease in the storage.
    """

    def __init__(self, store: WorkflowStore, manager_id: str) -> None:
        self._store = store
        self._manager_id = manager_id

    def claim_put(self, key: str, objects: Iterable[CachedObject], look: StatusLook) -> Put | None:
        """The write that claims a result if its object is new; None where another manager computes the result.

        :param objects: of the folder of its key, as listed before.
        :param look: at the managers.
        :raises StorageError: when that can't be found out.
        """
        claims = {parse_cache_claim(one.key): one.key for one in objects if one.file is None}
        latest = max(claims, default=0)
        if latest and self.is_held(claims[latest], look):
            return None
        path = cache_claim_key(key, latest + 1)
        body = {"manager_id": self._manager_id}
        document = dump_document(path, "cache_claim", body, signing=self._store.signing)
        return Put(path, document, must_be_new=True)

    def is_held(self, path: str, look: StatusLook) -> bool:
        """True while the manager that made a claim lives; False for a claim of this one that was left."""
        try:
            data = self._store.bytes.get(path)
            body = load_line(path, "cache_claim", data, signing=self._store.signing)
            with understanding(path, "cache_claim"):
                manager_id = str(body["manager_id"])
        except KeyNotFoundError:
            return True  # given back since the listing: the next look finds the result
        except DataLoadError as exc:
            if exc.is_transient:
                raise
            log.warning("A claim in the cache does not count: %s", exc)
            return False
        return manager_id != self._manager_id and not look.may_be_replaced(manager_id)

    def give_back(self, paths: Iterable[str]) -> None:
        """Delete claims, with those of dead managers before them.

        :raises DataSaveError: when that fails; they hold as long as this manager lives.
        """
        found = [(path.rpartition("/")[0], parse_cache_claim(path)) for path in paths]
        self._store.bytes.delete(
            f"{folder}/{earlier:08d}.claim"
            for folder, number in found
            for earlier in range(1, number + 1)
        )
