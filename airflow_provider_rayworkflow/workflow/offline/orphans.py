"""Deletes what is stored for workflows, managers and clusters that do not exist: events, submissions and their
answers, uses of archives, leases.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore


def delete_orphaned_events(store: WorkflowStore, before: float) -> int:
    """Delete the events of unknown workflows that were posted before a time; returns how many.

    :param before: seconds since the epoch.
    """
    found = store.events.list_segments()
    if not found:
        return 0
    # Looked at later than the events: a workflow that has begun is known.
    is_unknown = _known_later(store)
    return sum(
        store.events.delete_expired(event_keys, before=before)
        for segment, event_keys in found.items()
        if is_unknown(segment)
    )


def delete_orphaned_submissions(store: WorkflowStore, before: float) -> list[str]:
    """Forget what was submitted before a time and never began: its answers, and its uses of archives.

    What still waits for a manager is left alone.

    :param before: seconds since the epoch.
    :returns: the SHA-256 of each archive that was deleted.
    """
    waiting = {keys.segment_of(key.rpartition("/")[0]) for key in store.mailbox.list_submissions()}
    # Looked at later than the submissions: a workflow that has begun is known.
    has_no_status = _known_later(store)

    def is_unknown(segment: str) -> bool:
        return segment not in waiting and has_no_status(segment)

    store.mailbox.forget_orphaned(is_unknown, before=before)
    return store.archives.release_orphaned(is_unknown, before=before)


def _known_later(store: WorkflowStore) -> Callable[[str], bool]:
    """Tells that nothing is stored of a workflow, by its segment. One that can't be read may be there."""
    overview = Overview(store)
    has_index = overview.load()

    def is_unknown(segment: str) -> bool:
        if has_index and overview.get(segment) is not None:
            return False
        try:
            return store.latest_of_segment(segment) is None
        except StorageError:
            return False

    return is_unknown


def delete_dead_leases(store: WorkflowStore, before: float) -> int:
    """Delete the leases that were renewed before a time, and are not for a whole lease time now.

    A manager that is killed leaves its lease, and each manager reads all leases when it starts.

    :param before: seconds since the epoch. It chooses what is watched; a clock decides nothing else.
    :returns: how many.
    """
    leases = store.leases
    old = [lease for lease in leases.list_all() if lease.renewed_at < before]
    if not all([leases.watch.judge(lease, time.time()) == "dead" for lease in old]):
        time.sleep(LEASE_TTL_S)
    dead = [
        now.manager_id
        for lease in old
        if (now := leases.read(lease.manager_id)) is not None
        and leases.watch.judge(now, time.time()) == "dead"
    ]
    for manager_id in dead:
        leases.delete(manager_id)
    return len(dead)


def delete_dead_submissions(store: WorkflowStore, before: float) -> int:
    """Delete what was submitted before a time for clusters that have no manager; returns how many.

    A cluster that is started anew has another id. Leases that are stored count, also those of dead managers: see
    :func:`delete_dead_leases`. A try that waits yet submits again; a submission that can't be read stays.

    :param before: seconds since the epoch.
    """
    old = []
    for key in store.mailbox.list_submissions():
        try:
            submission = store.mailbox.read_submission(key)
        except (KeyNotFoundError, DataLoadError):
            continue
        if submission.submitted_at < before:
            old.append(submission)
    if not old:
        return 0
    # Later than the submissions: a manager that has begun to take them is among them.
    clusters = {lease.cluster for lease in store.leases.list_all()}
    dead = [submission for submission in old if submission.cluster not in clusters]
    for submission in dead:
        store.mailbox.delete_submission(submission.workflow_id, submission.submission_id)
    return len(dead)
