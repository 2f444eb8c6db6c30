"""Records whose fields matter to no test: a test gives those that it is about."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.mailbox import Submission


def status_record(status: WorkflowStatus, workflow_id: str = "w", **fields: Any) -> StatusRecord:
    """The first status of a workflow's first run, by the manager ``"m"``."""
    given = {"epoch": 1, "number": 0, "manager_id": "m", "created_at": 0.0}
    return StatusRecord(workflow_id=workflow_id, status=status, **given | fields)


def claim_epoch(
    store: WorkflowStore, workflow_id: str = "w", graph: Graph | None = None, **fields: Any
) -> Claim | None:
    """A claim, by default of the first epoch by the manager ``"m"``; None if another one was first."""
    given = {"after": 0, "manager_id": "m", "now": 1.0, "user_metadata": {}}
    claim = next_claim(workflow_id, has_graph=graph is not None, **given | fields)
    return claim if store.claim(claim, graph) else None


def store_run(store: WorkflowStore, record: StatusRecord, graph: Graph) -> StatusRecord:
    """Store a workflow that has this status in its first run."""
    assert claim_epoch(
        store,
        record.workflow_id,
        graph,
        manager_id=record.manager_id,
        now=record.created_at,
        user_metadata=record.user_metadata,
    )
    store.write_status(record)
    return record


def lease(manager_id: str = "m", **fields: Any) -> Lease:
    """A lease that this process has just renewed."""
    given = {"actor_id": "a", "process": Process.current(), "renewed_at": time.time()}
    return Lease(manager_id=manager_id, **given | fields)


def submission(**fields: Any) -> Submission:
    given: dict[str, Any] = {
        "workflow_id": "w",
        "submission_id": "try-1",
        "token": "try",
        "workflow": "pipelines:daily",
        "arguments": {},
        "user_metadata": {},
        "on_existing": "resume",
        "submitted_at": 1.0,
        "python": "3.11",
        "package_version": "",
    }
    return Submission(**given | fields)
