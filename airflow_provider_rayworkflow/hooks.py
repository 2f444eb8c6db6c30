"""The connection to Ray and to the storage of workflows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import (
    WorkflowStore,
    open_store,
    resolve_storage,
)
from airflow_provider_rayworkflow.workflow.storage.workflows import HonestStatuses


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What a connection of type ``ray_workflow`` says; None where it says nothing.

    :ivar storage: absolute path or URI where workflows are stored.
    :ivar num_cpus: how many CPUs Ray may use in the task process.
    :ivar object_store_memory_mb: shared memory for values that pass between workflow tasks.
    """

    storage: str | None = None
    num_cpus: int | None = None
    object_store_memory_mb: int | None = None

    @classmethod
    def from_connection(cls, connection: Connection) -> ConnectionSettings:
        """Read a connection.

        :raises RayWorkflowConnectionError: for a host, and for extras that are unknown or of a
            wrong type.
        """
        conn_id = connection.conn_id
        if connection.host:
            raise RayWorkflowConnectionError(
                f"The connection {conn_id!r} has the host {connection.host!r}, and remote Ray "
                "clusters are not supported yet. Leave the host empty to run Ray in the task."
            )
        known = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for name, value in connection.extra_dejson.items():
            if name not in known:
                raise RayWorkflowConnectionError(
                    f"The connection {conn_id!r} has the unknown extra {name!r}. "
                    f"Known ones are {known}."
                )
            if value not in (None, ""):
                values[name] = value
        if not isinstance(values.get("storage", ""), str):
            raise _wrong_type(conn_id, "storage", "a path or URI", values["storage"])
        for name, least in (("num_cpus", 1), ("object_store_memory_mb", _LEAST_OBJECT_STORE_MB)):
            if name in values:
                values[name] = _whole_number(conn_id, name, values[name], least)
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is stored of a workflow.

    :ivar record: as it was written.
    :ivar status: the honest one: RESUMABLE if it was written as active and its owner is gone.
    """

    record: StatusRecord
    status: WorkflowStatus

    @property
    def has_lost_owner(self) -> bool:
        return self.record.status is not self.status


class RayWorkflowHook(BaseHook):
    """Knows the connection. Reads of workflows what is JSON; never unpickles.

    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. The default one need not
        exist: Ray then runs in the task process, with the default storage.
    """

    conn_name_attr = "ray_workflow_conn_id"
    default_conn_name = "ray_workflow_default"
    conn_type = "ray_workflow"
    hook_name = "Ray Workflow"

    def __init__(self, ray_workflow_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ray_workflow_conn_id = ray_workflow_conn_id

    @cached_property
    def settings(self) -> ConnectionSettings:
        """What the connection says.

        :raises RayWorkflowConnectionError: when the connection can't be used.
        :raises AirflowNotFoundException: when there is none of that name.
        """
        try:
            connection = self.get_connection(self.ray_workflow_conn_id)
        except AirflowNotFoundException:
            if self.ray_workflow_conn_id != self.default_conn_name:
                raise
            return ConnectionSettings()
        return ConnectionSettings.from_connection(connection)

    @property
    def storage_uri(self) -> str:
        """The storage: the connection's, else ``RAY_WORKFLOW_STORAGE``, else the default."""
        return resolve_storage(self.settings.storage)

    @cached_property
    def store(self) -> WorkflowStore:
        """The storage, opened. Nothing is written.

        :raises RayWorkflowConnectionError: when the URI can't be used.
        """
        try:
            return WorkflowStore(open_store(self.storage_uri))
        except ValueError as exc:
            raise RayWorkflowConnectionError(
                f"The connection {self.ray_workflow_conn_id!r}: {exc}"
            ) from exc

    def find(self, workflow_id: str) -> Found | None:
        """What is stored of a workflow, None if nothing is. Up to three reads.

        :raises RayWorkflowStorageError: when it can't be read.
        """
        try:
            record = self.store.read_status(workflow_id)
            if record is None:
                return None
            honest = HonestStatuses(self.store, now=time.time())
            status = honest.of(record.status, record.manager_id)
        except StorageError as exc:
            raise RayWorkflowStorageError(
                f"The status of workflow {workflow_id!r} can't be read from "
                f"{self.storage_uri!r}: {exc}"
            ) from exc
        return Found(record=record, status=status)

    def check_storage(self) -> None:
        """Return if the storage can be written.

        :raises RayWorkflowStorageError: if not.
        """
        try:
            self.store.bytes.check_writable()
        except StorageError as exc:
            raise RayWorkflowStorageError(str(exc)) from exc

    def test_connection(self) -> tuple[bool, str]:
        """Say whether Ray is installed here and the storage can be written and read."""
        try:
            if importlib.util.find_spec("ray") is None:
                return False, "Ray is not installed here: pip install 'ray[default]'."
            ray_version = importlib.metadata.version("ray")
            self.check_storage()
            self.find("connection-test")
        except Exception as exc:  # the form shows the text
            return False, f"{type(exc).__name__}: {exc}"
        return True, (
            f"Ray {ray_version} is installed and runs in the task process. "
            f"Workflows can be written to and read from {self.storage_uri}."
        )


_LEAST_OBJECT_STORE_MB = 80  # Ray takes no less


def _whole_number(conn_id: str, name: str, value: Any, least: int) -> int:
    if isinstance(value, str) and value.isdecimal():  # a connection that was given as a URI
        value = int(value)
    if type(value) is not int or value < least:
        raise _wrong_type(conn_id, name, f"a whole number of at least {least}", value)
    return value


def _wrong_type(conn_id: str, name: str, expected: str, value: Any) -> RayWorkflowConnectionError:
    return RayWorkflowConnectionError(
        f"The connection {conn_id!r} has the extra {name}={value!r:.200}; it must be {expected}."
    )
