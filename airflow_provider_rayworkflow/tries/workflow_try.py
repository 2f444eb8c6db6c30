"""One try of a task instance at a workflow: submit it if need be, watch it, stop it."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Literal, Protocol

from airflow_provider_rayworkflow.exceptions import RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.observability.metrics import count_end, count_try
from airflow_provider_rayworkflow.observability.tracing import trace_tasks
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.decision import Action
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.progress import Throttle, progress_line
from airflow_provider_rayworkflow.workflow.model.records import (
    OnExisting,
    StartOptions,
    StatusRecord,
)

log = get_logger(__name__)

Json = dict[str, Any]

#: How often one try goes on with a workflow that was taken from it.
_MAX_TAKEOVERS = 3

_STOPPING_POLL_INTERVAL_S = 0.2


class Engine(Protocol):
    """What runs one workflow; what its methods do is said at :class:`RayEngine`."""

    def prepare(self) -> None: ...

    def submit(self, options: StartOptions) -> None: ...

    def attach(self) -> None: ...

    def rejoin(self) -> None: ...

    def has_begun(self) -> bool: ...

    def was_stopped_by_other(self, found: StoredWorkflow) -> bool: ...

    def stop(self, how: Literal["suspend", "cancel"]) -> None: ...

    def close(self, *, suspend: bool = False) -> None: ...


class WorkflowTry:
    """Brings one workflow to its end.

    :param backoff: for a storage that can't be read.
    :param log: shows what the workflow's tasks print, while the try waits.
    """

    def __init__(
        self,
        *,
        hook: RayWorkflowHook,
        engine: Engine,
        spec: RunSpec,
        poll_interval_s: float,
        backoff: Backoff,
        log: WorkflowLog,
    ) -> None:
        self._log = log
        self._hook = hook
        self._engine = engine
        self.workflow_id = spec.workflow_id
        self._on_change, self._on_failure = spec.on_change, spec.on_failure
        self._poll_interval_s = poll_interval_s
        self._backoff = backoff
        self._is_stopping = False
        self._wake = threading.Event()
        self._throttle = Throttle()
        self._takeovers = 0
        self._takes = False
        self._epoch_before = 0
        self._told_epoch = 0

    def prepare(self, action: Action) -> None:
        """Find out what can't work, before anything is written or started.

        :raises RayWorkflowInputError: when the author's function returns no graph.
        :raises RayWorkflowStorageError: when the storage can't be written.
        """
        if action.submits:
            self._engine.prepare()
            self._hook.check_storage()

    def start(
        self, action: Action, *, before: StoredWorkflow | None, from_task: str = ""
    ) -> StoredWorkflow:
        """Do what was decided, and return what is stored as soon as that is of it.

        :param before: what was decided about.
        :param from_task: a task of the workflow to restart from, ``""`` for none.
        """
        count_try(action.value)
        self._takes = action is Action.TAKE
        self._epoch_before = before.record.epoch if before else 0
        # What earlier runs found is not told again, unless this try joins one.
        self._told_epoch = 0 if action is Action.ATTACH else self._epoch_before
        self._log.begin(epoch_before=self._epoch_before, is_new_run=action.submits)
        if action.submits:
            on_existing: OnExisting = "restart" if action is Action.START_OVER else "resume"
            self._engine.submit(self._options(on_existing, from_task))
            return self._wait_for_begin()
        if action is Action.ATTACH:
            self._engine.attach()
        return self._look()

    def rejoin(self, carried: Json) -> StoredWorkflow:
        """Go on as the same try in another process.

        :param carried: what :attr:`carried` was there.
        """
        self._takeovers, self._told_epoch = carried["takeovers"], carried["told_epoch"]
        self._log.rejoin(carried["log"])
        self._engine.rejoin()
        return self._look()

    @property
    def carried(self) -> Json:
        """What :meth:`rejoin` has to know; JSON."""
        return {
            "takeovers": self._takeovers,
            "told_epoch": self._told_epoch,
            "log": self._log.carried,
        }

    def wait(self, found: StoredWorkflow, *, at_most_s: float = math.inf) -> StoredWorkflow:
        """Wait for the workflow's end, and return what is stored then.

        :param at_most_s: how long; after that the workflow may be active yet.
        """
        until = time.monotonic() + at_most_s
        while (found := self._settle(found)).status.is_active:
            self._log.copy(self._hook.store)
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._pause(min(self._poll_interval_s, left_s))
            found = self._look()
        # Before a workflow has stopped, all of its log is written.
        self._log.copy(self._hook.store, is_last=True)
        return found

    def report(self, ended: StoredWorkflow) -> None:
        """Tell Airflow's metrics and its trace how the workflow ended, if it ended under this try."""
        if not self._takes:
            count_end(ended.status, ended.record)
            trace_tasks(self._hook.store, ended)

    def stop(self, how: Literal["suspend", "cancel"]) -> None:
        """Stop the workflow as far as it is ours, and wake :meth:`wait`; from another thread."""
        self._is_stopping = True
        self._engine.stop(how)
        self._wake.set()

    def close(self, *, suspend: bool = False) -> None:
        """Let go; the workflow goes on.

        :param suspend: it shall not.
        """
        self._engine.close(suspend=suspend)

    def _settle(self, found: StoredWorkflow) -> StoredWorkflow:
        """Resume the workflow if it was taken from this try; then it is active, or has ended."""
        self._log_reuse(found.record)
        while not found.status.is_active and self._was_taken(found):
            self._takeovers += 1
            self._engine.prepare()
            self._engine.submit(self._options("resume"))
            found = self._wait_for_begin()
            self._log_reuse(found.record)
        self._log_progress(found.record)
        return found

    def _options(self, on_existing: OnExisting, from_task: str = "") -> StartOptions:
        return StartOptions(
            on_existing=on_existing,
            on_change=self._on_change,
            on_failure=self._on_failure,
            from_task=from_task,
        )

    def _wait_for_begin(self) -> StoredWorkflow:
        """Wait until what is stored is of what was submitted, and return it."""
        while not self._engine.has_begun():
            self._pause(self._poll_interval_s)
        found = self._look()  # no sooner: that might be of the run before
        if found.record.epoch == self._epoch_before and not found.status.is_active:
            log.info("Workflow %s has nothing to run: its output stays", self.workflow_id)
        return found

    def _look(self) -> StoredWorkflow:
        found = self._find()
        if found is None:
            raise RayWorkflowStorageError(
                f"Nothing is stored of workflow {self.workflow_id!r} any more: it was "
                "deleted while a task waited for it. The next try runs it from the start."
            )
        return found

    def _find(self) -> StoredWorkflow | None:
        found = self._backoff.retrying(
            lambda: self._hook.find(self.workflow_id),
            errors=RayWorkflowStorageError,
            warn=log.warning,
            wait=self._pause,
            is_stopping=lambda: self._is_stopping,
        )
        return found and found.until_certain

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds):
            time.sleep(min(seconds, _STOPPING_POLL_INTERVAL_S))

    def _was_taken(self, found: StoredWorkflow) -> bool:
        if self._is_stopping or self._takeovers >= _MAX_TAKEOVERS:
            return False
        if found.has_lost_owner:
            log.warning("Workflow %s has lost its owner: resuming it", self.workflow_id)
            return True
        if found.status.can_be_resumed and self._engine.was_stopped_by_other(found):
            log.warning(
                "Workflow %s was suspended at the end of an earlier try: resuming it",
                self.workflow_id,
            )
            return True
        return False

    def _log_reuse(self, record: StatusRecord) -> None:
        if record.reuse is not None and record.epoch > self._told_epoch:
            self._told_epoch = record.epoch
            log.info("Workflow %s goes on: %s", self.workflow_id, record.reuse)

    def _log_progress(self, record: StatusRecord) -> None:
        line = progress_line(record)
        if record.tasks_done and self._throttle.is_due(line, time.monotonic()):
            log.info("Workflow %s: %s", self.workflow_id, line)
