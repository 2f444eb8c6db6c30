"""Reads what lists show of workflows from their status documents, several at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey, unquote_id
from airflow_provider_rayworkflow.workflow.storage.status_documents import Report
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

S = TypeVar("S")
T = TypeVar("T")


class InThreads(Protocol):
    """Calls for each item, several at once, and returns what the calls return."""

    def __call__(self, call: Callable[[S], T], items: Iterable[S], /) -> list[T]: ...


class RowReader:
    """Reads rows from status documents: a listing and a read each.

    :param report: told of documents that can't be read.
    :param in_threads: None for threads of its own.
    """

    def __init__(
        self, store: WorkflowStore, report: Report, in_threads: InThreads | None = None
    ) -> None:
        self._store = store
        self._report = report
        self._in_threads = in_threads

    def read(
        self, segments: Collection[str], *, instead: Callable[[str], IndexRow | None]
    ) -> dict[str, IndexRow | None]:
        """Rows by segment, None for what is not stored (any more).

        :param instead: gives the row of one whose document can't be read.
        :raises StorageError: when the storage does not answer.
        """

        def read(segment: str) -> IndexRow | None:
            try:
                return self._store.read_row(segment)
            except DataLoadError as exc:
                if exc.is_transient:
                    raise
                self._report(exc)
                return instead(segment)

        return dict(zip(segments, self.each(read, segments), strict=True))

    def each(self, call: Callable[[S], T], items: Collection[S]) -> list[T]:
        """What the call returns for each item, in their order; several at once where the storage gains by it."""
        if self._in_threads is not None:
            return self._in_threads(call, items)
        return map_at_once(self._store.bytes, call, list(items))


def row_of_name(key: StatusKey, workflow_id: str = "") -> IndexRow:
    """What the name of a status document says of its workflow.

    :param workflow_id: ``""`` where it is not known: then a long id is its segment.
    """
    return IndexRow(
        segment=key.segment,
        workflow_id=workflow_id or unquote_id(key.segment) or key.segment,
        status=key.status,
        epoch=key.epoch,
        number=key.number,
        manager_id=key.manager_id,
    )
