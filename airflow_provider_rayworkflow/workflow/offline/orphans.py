"""Deletes stored events whose workflow does not exist."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore


def delete_orphaned_events(store: WorkflowStore, before: float) -> int:
    """Delete the events of unknown workflows that were posted before a time; returns how many.

    :param before: seconds since the epoch.
    """
    events = EventStore(store.bytes, signing=store.signing)
    found = events.list_segments()
    if not found:
        return 0
    closed: set[str] = set()  # unreadable: these may be there
    # Later than the events: a workflow that has begun is in it.
    known = store.list_segments(lambda problem: closed.add(keys.segment_of(problem.key)))
    return sum(
        events.delete_expired(event_keys, before=before)
        for segment, event_keys in found.items()
        if segment not in known and segment not in closed
    )
