"""The connection to Ray and to the storage of workflows."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow.connection.checks import (
    check_cluster,
    check_local_ray,
    run_checks,
)
from airflow_provider_rayworkflow.connection.object_storage import open_through_airflow
from airflow_provider_rayworkflow.connection.settings import ConnectionSettings
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowInputError,
    RayWorkflowNotFoundError,
    RayWorkflowStillActiveError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.workflow.exceptions import (
    StorageError,
    WorkflowNotFoundError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE, SigningKeys
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import OnChange
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle, prune
from airflow_provider_rayworkflow.workflow.offline.finished import FinishedTasks
from airflow_provider_rayworkflow.workflow.offline.plan import Plan, make_plan
from airflow_provider_rayworkflow.workflow.storage import (
    WorkflowStore,
    open_store,
    resolve_storage,
    shown,
)
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RETRY_FOR_S
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.mailbox import How, Mailbox, StopRequest
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow

__all__ = ["RayWorkflowHook", "StoredWorkflow"]


class RayWorkflowHook(BaseHook):
    """Knows the connection. Reads of workflows what is JSON; never unpickles.

    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. The default one need not
        exist: workflows then run on the local Ray of the machine, with the default storage.
    :param retry_for_s: how long a call of the storage is tried again that may work a moment later.
    """

    conn_name_attr = "ray_workflow_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "ray_workflow"
    hook_name = "Ray Workflow"

    def __init__(
        self,
        ray_workflow_conn_id: str = default_conn_name,
        *,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        super().__init__()
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self._retry_for_s = retry_for_s

    @cached_property
    def settings(self) -> ConnectionSettings:
        """What the connection says.

        :raises RayWorkflowConnectionError: when the connection can't be used.
        :raises AirflowNotFoundException: when no connection has that name.
        """
        try:
            connection = self.get_connection(self.ray_workflow_conn_id)
        except AirflowNotFoundException:
            if self.ray_workflow_conn_id != self.default_conn_name:
                raise
            _check_variable(f"AIRFLOW_CONN_{self.default_conn_name.upper()}")
            return ConnectionSettings()
        return ConnectionSettings.from_connection(connection)

    @property
    def storage_uri(self) -> str:
        """The storage: the connection's, else ``RAY_WORKFLOW_STORAGE``, else the default."""
        return resolve_storage(self.settings.storage)

    @property
    def shown_storage(self) -> str:
        """The same for people, without credentials."""
        return shown(self.storage_uri)

    @cached_property
    def store(self) -> WorkflowStore:
        """The storage, opened. Nothing is written.

        :raises RayWorkflowConnectionError: when the URI can't be used.
        """
        conn_id = self.settings.storage_conn_id
        try:
            if conn_id:
                store = open_through_airflow(
                    self.storage_uri, conn_id, retry_for_s=self._retry_for_s
                )
            else:
                store = open_store(self.storage_uri, retry_for_s=self._retry_for_s)
            secret = self.settings.signing_secret
            signing = SigningKeys.from_text(secret) if secret else None
            return WorkflowStore(store, signing=signing)
        except ValueError as exc:
            raise RayWorkflowConnectionError(
                f"The connection {self.ray_workflow_conn_id!r}: {exc}"
            ) from exc

    @cached_property
    def statuses(self) -> StatusReader:
        """The statuses in :attr:`store`, which it opens."""
        return StatusReader(self.store)

    def use_signing_secret(self) -> None:
        """From here on sign, and check, with the connection's secret: this process and all it starts.

        For processes that have one connection: those of tasks.

        :raises RayWorkflowConnectionError: when the process signs with another one.
        """
        secret = self.settings.signing_secret
        if secret and os.environ.setdefault(SIGNING_KEY_VARIABLE, secret) != secret:
            raise RayWorkflowConnectionError(
                f"The connection {self.ray_workflow_conn_id!r} has a signing_secret, and the "
                f"environment variable {SIGNING_KEY_VARIABLE} has another one. Leave one of them out."
            )

    def find(self, workflow_id: str) -> StoredWorkflow | None:
        """What is stored of a workflow, None if nothing is. Up to three reads.

        :raises RayWorkflowStorageError: when it can't be read.
        """
        try:
            return self.statuses.read(workflow_id)
        except StorageError as exc:
            raise RayWorkflowStorageError(
                f"The status of workflow {workflow_id!r} can't be read from "
                f"{self.shown_storage!r}: {exc}"
            ) from exc

    def has_finished(self, found: StoredWorkflow, task_id: str) -> bool:
        """True if a task of the workflow has a committed result. Reads all of its checkpoints.

        :raises RayWorkflowStorageError: when they can't be read.
        """
        tasks = FinishedTasks(self.store, found.record.workflow_id)
        with self._storage_errors():
            try:
                return tasks.has(task_id, epoch=found.record.epoch, status=found.record.status)
            except WorkflowNotFoundError:
                return False  # it has just been deleted

    def list_ids(self, statuses: Collection[WorkflowStatus]) -> dict[str, int]:
        """Ids of the workflows that have one of these statuses, each with its latest epoch.

        A listing, and a read for each manager.

        :raises RayWorkflowStorageError: when they can't be listed.
        """
        with self._storage_errors():
            return {
                listed.workflow_id: listed.row.epoch
                for listed in Overview(self.store).find(statuses)
            }

    def cancel(self, workflow_id: str) -> WorkflowStatus:
        """Cancel an inactive workflow, or ask the manager that runs it. See :func:`cancel`.

        :raises RayWorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it has been successful.
        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        with self._storage_errors():
            return lifecycle.cancel(self.store, workflow_id, now=time.time())

    def suspend(self, workflow_id: str) -> None:
        """Ask the manager of a workflow to stop it so that it can be resumed. Does not wait.

        :raises RayWorkflowNotFoundError: when there is no such workflow.
        :raises IllegalTransitionError: when it is inactive.
        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        with self._storage_errors():
            lifecycle.suspend(self.store, workflow_id, now=time.time())

    def delete(self, workflow_id: str) -> None:
        """Delete all that is stored of a workflow.

        :raises RayWorkflowNotFoundError: when there is no such workflow.
        :raises RayWorkflowStillActiveError: when it is active.
        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        visitor = new_visitor_id()
        with self._storage_errors():
            found = self.statuses.read_name(workflow_id)
            if found is None:
                raise RayWorkflowNotFoundError(workflow_id, self.shown_storage)
            lifecycle.delete(self.store, found, manager_id=visitor, now=time.time())

    def prune(
        self,
        *,
        older_than_s: float | None,
        statuses: Collection[str],
        keep_outputs: bool,
        dry_run: bool,
        id_prefix: str = "",
    ) -> list[str]:
        """Delete ended workflows; their ids. See :func:`prune`.

        :raises RayWorkflowStorageError: when the storage can't be used.
        """
        with self._storage_errors():
            pruned = prune.prune(
                self.store,
                older_than_s=older_than_s,
                now=time.time(),
                statuses=statuses,
                id_prefix=id_prefix,
                keep_outputs=keep_outputs,
                dry_run=dry_run,
            )
        return [one.workflow_id for one in pruned]

    def plan(
        self,
        workflow_id: str,
        graph: Graph | None,
        *,
        on_change: OnChange,
        from_task: str = "",
        from_scratch: bool = False,
    ) -> Plan:
        """What a run or resume of a workflow would do. Nothing is run or written.

        :param graph: None for the stored one.
        :param from_scratch: the run would give up all that is stored.
        :raises RayWorkflowInputError: when there is no task ``from_task``.
        :raises RayWorkflowStorageError: when the storage can't be read.
        """
        found = None if from_scratch else self.find(workflow_id)
        with self._storage_errors():
            try:
                return make_plan(
                    self.store,
                    workflow_id,
                    found,
                    graph,
                    on_change=on_change,
                    from_task="" if from_scratch else from_task,
                )
            except ValueError as exc:
                raise RayWorkflowInputError(str(exc)) from exc

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except StorageError as exc:
            raise RayWorkflowStorageError(str(exc)) from exc
        except WorkflowNotFoundError as exc:
            raise RayWorkflowNotFoundError(exc.workflow_id, self.shown_storage) from exc
        except WorkflowStillActiveError as exc:
            raise RayWorkflowStillActiveError(
                exc.workflow_id, "is running or pending. Cancel or suspend it, or wait for its end"
            ) from exc

    def check_storage(self) -> None:
        """Return if the storage can be written.

        :raises RayWorkflowStorageError: if not.
        """
        with self._storage_errors():
            self.store.bytes.check_writable()

    def request_stop(self, workflow_id: str, *, token: str, how: How) -> None:
        """Ask the cluster to stop a workflow. Void unless the token owns it then.

        One write, or two for a cancel.

        :raises RayWorkflowStorageError: when it can't be written.
        """
        request = StopRequest(
            workflow_id=workflow_id, token=token, how=how, requested_at=time.time()
        )
        with self._storage_errors():
            self.mailbox.request_stop(request)

    def is_being_suspended(self, workflow_id: str) -> bool:
        """True while the request of the workflow's owner to suspend it is open. Two reads.

        :raises RayWorkflowStorageError: when that can't be read.
        """
        mailbox = self.mailbox
        with self._storage_errors():
            owner = mailbox.read_owner(workflow_id)
            request = mailbox.read_request(workflow_id, owner.token) if owner else None
        return request is not None and request.how == "suspend"

    @property
    def mailbox(self) -> Mailbox:
        """What is left in the storage for a cluster, and for other tries."""
        return self.store.mailbox

    def test_connection(self) -> tuple[bool, str]:
        """Say what works and what does not. Never raises; ends within the time limit."""
        try:
            cluster, uri = self.settings.cluster, self.shown_storage
            self.store  # noqa: B018 opens it
        except Exception as exc:  # the form shows the text
            return False, f"{type(exc).__name__}: {exc}"

        def read() -> str:
            self.find("connection-test")
            return f"Workflows can be read from {uri}"

        def write() -> str:
            self.check_storage()
            return f"Workflows can be written to {uri}. {self.store.bytes.weakness}".rstrip(". ")

        ray = (lambda: check_cluster(cluster)) if cluster else check_local_ray
        return run_checks(
            [("Ray", ray), ("Reading the storage", read), ("Writing the storage", write)],
            timeout_s=cluster.timeout_s if cluster else _TEST_TIMEOUT_S,
        )


def _check_variable(name: str) -> None:
    """Airflow knows no such connection: then also the variable must not be there."""
    if os.environ.get(name):
        raise RayWorkflowConnectionError(
            f"The environment variable {name} can't be read as a connection. Give it as JSON, or as "
            "ray-workflow://https://:TOKEN@HOST:8265/PATH?storage=URI, its parts URL-encoded."
        ) from None


_TEST_TIMEOUT_S = 30.0
