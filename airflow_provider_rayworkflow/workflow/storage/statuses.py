"""Statuses as documents: their keys, the write that makes one, and the listing that finds the latest."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.format.documents import dump_document
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put


def status_put(record: StatusRecord, *, signing: SigningKeys | None = None) -> Put:
    """The write of a status; see :meth:`WorkflowStore.write_status`."""
    key = status_key(record)
    return Put(key, dump_document(key, "status", record.to_json(), signing=signing))


def status_key(record: StatusRecord) -> str:
    """The key of a status document."""
    return keys.status_key(
        record.workflow_id,
        epoch=record.epoch,
        number=record.number,
        status=record.status,
        manager_id=record.manager_id,
    ).key


def latest_key(store: ByteStore, segment: str) -> keys.StatusKey | None:
    """What the name of a workflow's latest status says, None if nothing is stored. One listing.

    :param segment: of the workflow's id.
    """
    entries = store.list(keys.status_folder_of(segment))
    found = (keys.parse_status_key(entry.key) for entry in entries)
    return max((key for key in found if key is not None), default=None)
