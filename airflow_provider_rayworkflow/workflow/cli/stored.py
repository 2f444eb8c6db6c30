"""What commands read from the storage, without Ray; nothing is unpickled."""

from __future__ import annotations

import os
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.storage import (
    WorkflowStore,
    local_folder,
    open_store,
    resolve_storage,
    shown,
)
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


class UnavailableError(WorkflowError):
    """A command can't give what was asked for; the message says why, and what to do."""


def open_stored(options: Any) -> WorkflowStore:
    """The storage that the arguments or the environment name.

    :raises UnavailableError: for a folder that is not there.
    """
    check_is_there(options.storage)
    return WorkflowStore(open_store(resolve_storage(options.storage)))


def check_is_there(storage: str | None) -> None:
    """Check that a storage named by its folder exists: a wrong name must not show an empty storage.

    :raises UnavailableError: for a folder that does not exist.
    """
    folder = local_folder(storage) if storage else None
    if folder is not None and not os.path.isdir(folder):
        raise UnavailableError(
            f"There is no folder {folder!r} that this user may see. Give --storage the path or URI "
            "of a storage that is there; the first workflow makes it."
        )


def read_record(store: WorkflowStore, workflow_id: str) -> StatusRecord:
    """The status record with its honest status.

    :raises UnavailableError: when there is no such workflow.
    """
    found = StatusReader(store).read(workflow_id)
    if found is None:
        raise UnavailableError(f"There is no workflow {workflow_id!r} in {shown(store.bytes.uri)}.")
    return found.honest_record
