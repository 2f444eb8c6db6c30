"""What a running task asks of the runtime by its context."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    OwnershipLostError,
    StorageError,
    text_of,
)
from airflow_provider_rayworkflow.workflow.model.codec import decode
from airflow_provider_rayworkflow.workflow.model.records import RunningTask
from airflow_provider_rayworkflow.workflow.runtime.names import current_location
from airflow_provider_rayworkflow.workflow.runtime.worker.drains import DrainNotice
from airflow_provider_rayworkflow.workflow.runtime.worker.log_capture import current_log
from airflow_provider_rayworkflow.workflow.runtime.worker.manager_calls import (
    Ask,
    StopNotice,
    manager_caller,
)
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import NODE
from airflow_provider_rayworkflow.workflow.runtime.worker.scratch import Scratch
from airflow_provider_rayworkflow.workflow.runtime.worker.storable import encode_for
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.saved_folder import SavedFolder
from airflow_provider_rayworkflow.workflow.storage.saved_states import SavedStates
from airflow_provider_rayworkflow.workflow.storage.saved_versions import SavingAttempt


class Services:
    """:class:`.context.TaskServices` of one attempt. Any thread may call it; calls that block wait for each other.

    :param ask: calls the manager; by default that of the task which runs here.
    :ivar has_saved: something is stored for the task, which is of no use once it is committed.
    """

    def __init__(self, store: WorkflowStore, run: TaskRun, ask: Ask | None = None) -> None:
        self._store = store
        self._run = run
        self._ask = ask
        self._log = current_log()
        self._location = current_location()  # another thread of the task has none
        self._lock = threading.RLock()
        self._notices = threading.Lock()
        self._error: BaseException | None = None
        self._is_closed = False
        self._busy_calls = 0

    def saved(self) -> Any:
        """See :attr:`.WorkflowContext.saved`."""
        with self._busy():
            with self._using():
                found = self._states.read()
            if found is None:
                return None
            try:
                return decode(*found)
            except MemoryError:
                raise
            except BaseException as exc:
                raise ValueError(
                    f"The saved state of Task[id={self._run.task_id}] can't be unpickled: "
                    f"{type(exc).__qualname__}: {text_of(exc)}. Run its code as it was, or restart "
                    "the workflow from this task."
                ) from exc

    def save(self, state: Any) -> None:
        """See :meth:`.WorkflowContext.save`."""
        with self._busy():
            encoded = encode_for(self._run.task_id, state, verb="saved")
            with self._using():
                self._states.write(encoded.encoding, encoded.parts)

    @property
    def folder(self) -> SavedFolder:
        """See :attr:`.WorkflowContext.folder`."""
        with self._lock:
            self._check_open()
            return self._folder

    @property
    def should_stop(self) -> bool:
        """See :attr:`.WorkflowContext.should_stop`."""
        if self._run.is_event:
            return False
        has_node = self._ask is None
        with self._notices:  # not the lock of calls that block
            return self._notice.is_given or (has_node and self._drain.is_given)

    @property
    def leaves_node(self) -> bool:
        """True if the attempt has asked whether it is to stop, and its node is being drained."""
        return "_drain" in self.__dict__ and self._drain.is_given

    def begin(self) -> None:
        """The attempt begins."""
        run = self._run
        if run.stop_grace_s is not None:
            _ = self.should_stop  # the manager gets to know that it is of use to tell
        if run.heartbeat_timeout_s is not None and not run.is_event:
            with suppress(Exception):  # the manager is being restarted, which ends this attempt
                ask = self._ask or manager_caller(self._location)
                ask("attempts.beat", run.workflow_id, run.task_id, run.epoch, run.attempt)

    def function_begins(self) -> None:
        """What it takes is loaded, and its function is called next: the manager counts that, if its limits do."""
        run = self._run
        if run.tells_begin and not run.is_event:
            begun = RunningTask(
                task_id=run.task_id, attempt=run.attempt, started_at=time.time(), node=NODE
            )
            with suppress(Exception):  # the manager is being restarted, which ends this attempt
                ask = self._ask or manager_caller(self._location)
                ask("attempts.has_begun", run.workflow_id, run.epoch, begun)

    def heartbeat(self) -> None:
        """See :meth:`.WorkflowContext.heartbeat`."""
        if self._log is not None:
            self._log.beats += 1

    @property
    def has_saved(self) -> bool:
        made = self.__dict__
        return ("_states" in made and self._states.versions.has_any) or (
            "_folder" in made and self._folder.versions.has_any
        )

    def close(self) -> None:
        """The function has ended: a thread of it that goes on can save nothing any more."""
        with self._lock:
            self._is_closed = True
            self._count_busy(1)  # from now on: its value may take long to encode and to store
        for name in ("_notice", "_drain"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if "_scratch" in self.__dict__:
            self._scratch.close()

    def has_raised(self, exc: BaseException) -> bool:
        """True if this is how the storage, or a later run, has refused a call: no fault of the task."""
        return exc is self._error

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            try:
                with self._busy():
                    yield
            except (StorageError, OwnershipLostError) as exc:
                self._error = exc
                raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(
                f"This attempt of Task[id={self._run.task_id}] has ended: it can't save or load."
            )

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._lock:
            self._count_busy(1)
            try:
                yield
            finally:
                self._count_busy(-1)

    def _count_busy(self, change: int) -> None:
        self.heartbeat()
        self._busy_calls += change
        if self._log is not None:
            self._log.is_busy = self._busy_calls > 0

    # Made when they are needed: most tasks need none of them.

    @cached_property
    def _attempt(self) -> SavingAttempt:
        run = self._run
        return SavingAttempt(
            workflow_id=run.workflow_id,
            task_id=run.task_id,
            epoch=run.epoch,
            attempt=run.attempt,
            since_epoch=run.saved_since,
        )

    @cached_property
    def _states(self) -> SavedStates:
        return SavedStates(self._store.bytes, self._attempt, signing=self._store.signing)

    @cached_property
    def _folder(self) -> SavedFolder:
        return SavedFolder(
            self._store.bytes,
            self._attempt,
            self._scratch.new_folder,
            using=self._using,
            signing=self._store.signing,
        )

    @cached_property
    def _notice(self) -> StopNotice:
        run, ask = self._run, self._ask or manager_caller(self._location)
        return StopNotice(
            lambda: ask("attempts.until_stop", run.workflow_id, run.task_id, run.epoch, run.attempt)
        )

    @cached_property
    def _drain(self) -> DrainNotice:
        return DrainNotice()

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch()
