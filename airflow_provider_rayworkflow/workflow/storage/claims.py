"""Claims as documents: the next one, and the write that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import dump_document
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import OnChange, OnFailure
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put

Json = dict[str, Any]
_Buffer = bytes | bytearray | memoryview

#: So much of a claim tells it from all others: it says by whom and when it was made.
HEAD_BYTES = 4096


def latest_epoch(files: Iterable[keys.WorkflowFile]) -> int:
    """The latest claimed epoch among a workflow's files, 0 for none."""
    return max((file.epoch for file in files if file.kind == "epoch"), default=0)


def next_claim(
    workflow_id: str,
    *,
    after: int,
    manager_id: str,
    now: float,
    user_metadata: Json,
    has_graph: bool,
    continues: Claim | None = None,
    on_change: OnChange | None = None,
    on_failure: OnFailure | None = None,
    from_task: str = "",
    traceparent: str = "",
    submission_id: str = "",
    recoveries: int = 0,
) -> Claim:
    """The claim of the epoch after ``after``, which :func:`claim_put` writes.

    :param has_graph: it is written with a graph.
    :param continues: the claim whose checkpoints count (and whose graph, if none is given).
    :param on_change: None: as in that claim, else ``"reuse"``.
    :param on_failure: None: as in that claim, else ``"stop"``.
    :param from_task: a task whose checkpoint does not count any more.
    :param traceparent: ``""``: as in that claim.
    :param submission_id: of the submission that it is made for; ``""``: as in that claim.
    :param recoveries: see :class:`Claim`.
    """
    restarts = dict(continues.restarts) if continues else {}
    submission = (submission_id, after + 1)
    if not submission_id:
        submission = (continues.submission_id, continues.submission_epoch) if continues else ("", 0)
    return Claim(
        workflow_id=workflow_id,
        epoch=after + 1,
        manager_id=manager_id,
        claimed_at=now,
        graph_epoch=continues.graph_epoch if continues and not has_graph else after + 1,
        base_epoch=continues.base_epoch if continues else after + 1,
        user_metadata=user_metadata,
        on_change=on_change or (continues.on_change if continues else "reuse"),
        on_failure=on_failure or (continues.on_failure if continues else "stop"),
        restarts=restarts | ({from_task: after + 1} if from_task else {}),
        traceparent=traceparent or (continues.traceparent if continues else ""),
        submission_id=submission[0],
        submission_epoch=submission[1],
        recoveries=recoveries,
    )


def claim_head(
    store: ByteStore, workflow_id: str, epoch: int, length: int = HEAD_BYTES
) -> bytes | None:
    """The first bytes of a claim, None for an epoch that has none. One small read."""
    try:
        return store.get(keys.epoch_key(workflow_id, epoch), 0, length)
    except KeyNotFoundError:
        return None


def claim_put(claim: Claim, graph: Graph | None, *, signing: SigningKeys | None = None) -> Put:
    """The write that makes a claim; if its object is new, the claim holds."""
    body: Json = {name: getattr(claim, name) for name in claim.__slots__}
    data: list[_Buffer] = []
    if graph is not None:
        body["graph"] = graph.to_json()
        data = graph.dump_blobs()
    key = keys.epoch_key(claim.workflow_id, claim.epoch)
    return Put(key, dump_document(key, "epoch", body, data, signing=signing), must_be_new=True)
