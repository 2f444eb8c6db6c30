"""Which workflows have ended since a watcher's last look, remembered over restarts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_line,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """That a workflow got a status.

    :ivar key: of its status document; another one for each end.
    """

    workflow_id: str
    status: WorkflowStatus
    key: keys.StatusKey

    def to_json(self) -> Json:
        """``{"workflow_id", "status", "epoch"}``; the epoch rises with each start and resume."""
        return {
            "workflow_id": self.workflow_id,
            "status": self.status.value,
            "epoch": self.key.epoch,
        }


class Completions:
    """One watcher's ledger of the workflows whose end it has passed on.

    Its document has the latest end of each workflow that it has passed on, and nothing of those
    that are deleted. What had ended before the first look counts as passed on.

    What is told twice and what is lost is up to the caller: :meth:`look` gives an end once, and
    gives it again in another process until it is confirmed.

    :param name: of the watcher; unique on the storage.
    :param statuses: that count as an end.
    :param prefix: of the workflow ids to look at.
    :raises ValueError: for a prefix that is too long.
    """

    def __init__(
        self,
        store: WorkflowStore,
        name: str,
        *,
        statuses: Collection[WorkflowStatus],
        prefix: str = "",
    ) -> None:
        self._store = store
        self._reader = StatusReader(store, patient=True)
        self._key = keys.watcher_key(name)
        self._statuses = statuses
        self._prefix = keys.quote_prefix(prefix)
        self._confirmed: dict[str, str] | None = None
        self._given: dict[str, str] = {}

    def look(self) -> list[Completion]:
        """The ends that this object has not given yet. One listing, and a read for each manager.

        :raises StorageError: when that can't be read, or the first look not be noted.
        """
        ended, closed = self._ended()
        if self._confirmed is None:
            self._confirmed = self._read()
        if self._confirmed is None:
            self._confirmed = self._write({segment: key.name for segment, key in ended.items()})
        for known in (self._confirmed, self._given):
            for segment in known.keys() - ended.keys() - closed:
                del known[segment]
        return [
            completion
            for segment, key in ended.items()
            if key.name not in (self._confirmed.get(segment), self._given.get(segment))
            and (completion := self._give(key)) is not None
        ]

    def confirm(self, passed_on: Iterable[Completion]) -> None:
        """Note that these need not be given again. One write.

        :raises StorageError: when that can't be written; confirm any later one to try again.
        """
        if self._confirmed is None:
            raise ValueError("Look first.")
        for completion in passed_on:
            self._confirmed[completion.key.segment] = completion.key.name
        self._write(self._confirmed)

    def give_again(self, lost: Completion) -> None:
        """Give it once more at the next look."""
        self._given.pop(lost.key.segment, None)

    def _give(self, key: keys.StatusKey) -> Completion | None:
        try:
            self._store.believe(key)
            workflow_id = self._store.id_of(key)
        except KeyNotFoundError:
            return None  # replaced since the listing: the next look finds out by what
        except DataLoadError as exc:
            log.warning("The end of a workflow can't be passed on: %s", exc)
            return None
        self._given[key.segment] = key.name
        # What was active when it was written and is an end all the same has lost its owner.
        status = WorkflowStatus.RESUMABLE if key.status.is_active else key.status
        return Completion(workflow_id=workflow_id, status=status, key=key)

    def _ended(self) -> tuple[dict[str, keys.StatusKey], set[str]]:
        """Those that have ended, and those of which nothing can be known."""
        look = self._reader.look()
        closed: set[str] = set()

        def leave_out(problem: StorageError) -> None:
            closed.add(keys.segment_of(problem.key))

        ended = {
            segment: key
            for segment, key in self._store.list_segments(leave_out).items()
            if segment.startswith(self._prefix)
            and look.of(key.status, key.manager_id) in self._statuses
        }
        return ended, closed

    def _read(self) -> dict[str, str] | None:
        try:
            data = self._store.bytes.get(self._key)
            body = load_line(self._key, "watcher", data, signing=self._store.signing)
        except KeyNotFoundError:
            return None
        with understanding(self._key, "watcher"):
            return dict(body["confirmed"])

    def _write(self, confirmed: dict[str, str]) -> dict[str, str]:
        body = {"confirmed": confirmed}
        signing = self._store.signing
        self._store.bytes.put(self._key, dump_document(self._key, "watcher", body, signing=signing))
        return confirmed
