"""The outline of a workflow: its snapshot without values and arguments, for readers that show it.

It takes some memory for each task and none for what a task took or gave, and a workflow that is too large
for that is refused. So a page of the largest workflow is as cheap as its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    WorkflowError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    load_beginning,
    load_frames,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.shortening import shorten
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import Blob, Result, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_committed
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]

#: So many tasks at most, with those of continuations.
MOST_TASKS = 10_000
#: How large the JSON of its graph is at most, in bytes, with those of continuations.
MOST_GRAPH_BYTES = 2 * 1024 * 1024
#: How large a segment of its journal is at most, in bytes.
MOST_SEGMENT_BYTES = 16 * 1024 * 1024

_PIECE_BYTES = 1024 * 1024
_HELD_BYTES = 4 * 1024 * 1024
# A continuation that is smaller is kept as it is: to take it apart costs more than it takes.
_SMALL_BYTES = 4096
_MESSAGE_BYTES = 256


class TooLargeError(WorkflowError):
    """A workflow has more tasks, or a larger graph or journal, than an outline may have."""


def read_outline(store: WorkflowStore, record: StatusRecord, *, value_of: str = "") -> Snapshot:
    """How a workflow stands, in bounded memory. The reads of :func:`.read_snapshot`.

    Decisions and fingerprints are those of the snapshot. Of arguments nothing is read, so damage there does not
    show. Blobs of graphs are stand-ins, results have no bytes, failures no traceback and a short message.

    :param value_of: the task whose record is kept as it is.
    :raises TooLargeError: when it is too large.
    :raises StorageError: when it can't be read.
    """
    workflow_id = record.workflow_id
    claim, graph = _read_claim(store, workflow_id, record.epoch)
    if graph is None:
        _, graph = _read_claim(store, workflow_id, claim.graph_epoch)
    if graph is None:
        key = keys.epoch_key(workflow_id, claim.graph_epoch)
        raise CorruptedDataError(key, "it should carry a graph and has none")
    outlining = _Outlining(value_of, tasks=len(graph.tasks))
    files = store.list_files(workflow_id)
    if any(file.kind == "journal" and file.size > MOST_SEGMENT_BYTES for file in files):
        raise TooLargeError(
            f"A segment of its journal has more than {MOST_SEGMENT_BYTES >> 20} MiB."
        )
    checkpoints = read_committed(
        store, claim, files=files, taken=outlining.taken, held_bytes=_HELD_BYTES
    )
    return Snapshot(
        claim=claim,
        graph=graph,
        checkpoints=checkpoints,
        is_successful=record.status is WorkflowStatus.SUCCESSFUL,
    )


class _Outlining:
    """Keeps of each record what an outline needs, and counts what that takes."""

    def __init__(self, value_of: str, *, tasks: int) -> None:
        self._value_of = value_of
        self._tasks = tasks
        self._graph_bytes = 0
        self._check(0)

    def taken(self, found: Checkpoints, record: TaskRecord) -> None:
        kept = found.failures if record.is_failure else found.records
        if kept.get(record.task_id) is not record:
            return  # revoked, or damaged
        if record.task_id != self._value_of:
            kept[record.task_id] = record = _outlined(record)
        self._tasks += len(record.task_ids)
        self._graph_bytes += len(record.graph or b"")
        self._check(max(len(found.records), len(found.failures)))

    def _check(self, records: int) -> None:
        if max(self._tasks, records) > MOST_TASKS:
            raise TooLargeError(f"It has more than {MOST_TASKS:,} tasks.")
        if self._graph_bytes > MOST_GRAPH_BYTES:
            raise _too_large_graph()


def _outlined(record: TaskRecord) -> TaskRecord:
    result, failure, graph = record.result, record.failure, record.graph
    if result is not None and result.inline is not None:
        result = _without_bytes(result, len(result.inline))
    if failure is not None:
        message = shorten(failure.message, _MESSAGE_BYTES)
        failure = replace(failure, message=message, traceback="")
    if graph is not None and len(graph) > _SMALL_BYTES:
        graph = _outlined_graph(record.task_id, graph)
    return record._replace(result=result, failure=failure, graph=graph, json_output=None)


def _without_bytes(result: Result, size: int) -> Result:
    """The result with another place for its bytes, which has the same identity."""
    stand_in = Blob(key="", size=size, sum=result.content)
    return result._replace(inline=None, blob=stand_in)


def _outlined_graph(task_id: str, data: bytes) -> bytes:
    key = f"continuation of {task_id}"
    body, frames = load_frames(key, "graph", data)
    for _ in frames:  # raises where one is not whole
        pass
    return _graph_of(key, body).to_bytes()


def _read_claim(store: WorkflowStore, workflow_id: str, epoch: int) -> tuple[Claim, Graph | None]:
    key = keys.epoch_key(workflow_id, epoch)
    try:
        data = store.bytes.get(key, 0, MOST_GRAPH_BYTES)
    except KeyNotFoundError as exc:
        raise WorkflowNotFoundError(workflow_id) from exc
    is_all = len(data) < MOST_GRAPH_BYTES
    if not is_all and b"\n" not in data:
        raise _too_large_graph()
    more = () if is_all else _pieces(store, key, len(data))
    body = load_beginning(key, "epoch", data, more, signing=store.signing)
    graph = body.pop("graph", None)
    with understanding(key, "epoch"):
        claim = well_typed(Claim(**body))
    return claim, _graph_of(key, graph) if graph else None


def _pieces(store: WorkflowStore, key: str, start: int) -> Iterator[bytes]:
    while piece := store.bytes.get(key, start, _PIECE_BYTES):
        yield piece
        start += len(piece)


def _graph_of(key: str, body: Json) -> Graph:
    """The graph with stand-ins for its blobs: of a function its fingerprint, of others nothing."""
    with understanding(key, "graph"):
        functions = {named["blob"]: named["code"] for named in body.get("functions", {}).values()}
        used = [-1, *functions]
        for kind in body["kinds"]:
            used += kind["function"], kind.get("ray_options", -1)
        used += [row[1] for row in body["tasks"] if type(row[1]) is int]
        if max(used) > _MOST_UNUSED * len(used):
            raise ValueError("it refers to what is not there")
        blobs = [functions.get(index, "").encode() for index in range(max(used) + 1)]
        return Graph.from_json(body, blobs)


_MOST_UNUSED = 16


def _too_large_graph() -> TooLargeError:
    return TooLargeError(f"Its graph has more than {MOST_GRAPH_BYTES >> 20} MiB.")
