"""One try of a task instance at a workflow: submit it if need be, watch it, stop it."""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from typing import Any, Literal

from airflow_provider_rayworkflow.definitions import WorkflowDefinition
from airflow_provider_rayworkflow.embedded import EmbeddedRay, keeping_sigterm_handler
from airflow_provider_rayworkflow.exceptions import RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import Found, RayWorkflowHook
from airflow_provider_rayworkflow.tries import Action
from airflow_provider_rayworkflow.workflow.model import StatusRecord

log = logging.getLogger(__name__)

#: How often one try goes on with a workflow whose owner vanished.
_MAX_TAKEOVERS = 3


class WorkflowRun:
    """Brings one workflow to its end.

    :param metadata: for a workflow that starts from scratch.
    """

    def __init__(
        self,
        *,
        hook: RayWorkflowHook,
        definition: WorkflowDefinition,
        workflow_id: str,
        metadata: dict[str, Any],
        poll_interval_s: float,
    ) -> None:
        self._hook = hook
        self._ray = EmbeddedRay(hook.settings, hook.storage_uri)
        self._definition = definition
        self._workflow_id = workflow_id
        self._metadata = metadata
        self._poll_interval_s = poll_interval_s
        self._is_ours = False
        self._is_stopping = False
        self._wake = threading.Event()
        self._progress = (0, 0)

    def prepare(self, action: Action) -> None:
        """Find out what can't work, before anything is written or started.

        :raises RayWorkflowInputError: when the author's function returns no graph.
        :raises RayWorkflowStorageError: when the storage can't be written.
        """
        if action.submits:
            self._graph  # noqa: B018 builds it
            self._hook.check_storage()

    def run(self, action: Action) -> Found:
        """Do what was decided, wait for the workflow's end, and return what is stored then."""
        if action.submits:
            self._submit("restart" if action is Action.START_OVER else "resume")
        takeovers = 0
        while True:
            found = self._hook.find(self._workflow_id)
            if found is None:
                raise RayWorkflowStorageError(
                    f"Nothing is stored of workflow {self._workflow_id!r} any more: it was "
                    "deleted while a task waited for it. The next try runs it from the start."
                )
            if found.status.is_active:
                self._log_progress(found.record)
                self._wake.wait(self._poll_interval_s)
            elif found.has_lost_owner and not self._is_stopping and takeovers < _MAX_TAKEOVERS:
                takeovers += 1
                log.warning("Workflow %s has lost its owner: resuming it", self._workflow_id)
                self._submit("resume")
            else:
                self._log_progress(found.record)
                return found

    def stop(self, how: Literal["suspend", "cancel"]) -> None:
        """Stop the workflow if this process runs it, and wake :meth:`run`; from another thread."""
        self._is_stopping = True
        if self._is_ours:
            if how == "cancel":
                self._ray.cancel(self._workflow_id)
            else:
                self._ray.suspend(self._workflow_id)
        self._wake.set()

    def close(self) -> None:
        """Leave nothing running in this process; what still runs is suspended."""
        self._ray.close()

    @cached_property
    def _graph(self) -> Any:
        with keeping_sigterm_handler():  # the author's function may start Ray
            return self._definition.build_graph()

    def _submit(self, on_existing: Literal["resume", "restart"]) -> None:
        self._ray.submit(
            self._graph,
            workflow_id=self._workflow_id,
            metadata=self._metadata,
            on_existing=on_existing,
        )
        self._is_ours = True

    def _log_progress(self, record: StatusRecord) -> None:
        progress = (record.tasks_done, record.tasks_total)
        if record.tasks_done and progress != self._progress:
            self._progress = progress
            log.info(
                "Workflow %s: %d of %d tasks done, %d of them by earlier tries",
                self._workflow_id,
                record.tasks_done,
                record.tasks_total,
                record.tasks_reused,
            )
