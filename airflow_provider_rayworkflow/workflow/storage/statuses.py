"""Statuses as documents: their keys, and the write that makes one."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.format.documents import dump_document
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put


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
