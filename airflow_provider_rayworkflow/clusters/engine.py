"""Runs one workflow by documents in the storage: a submission, which the manager of a cluster finds."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Protocol, TypeVar

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.clusters.archives import PackedEnvironment, with_archives
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowError,
    RayWorkflowInputError,
    RayWorkflowQueueFullError,
    RayWorkflowStartError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    StorageError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.execution.trace_context import current_traceparent
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    How,
    Mailbox,
    Owner,
    Submission,
    SubmissionAnswer,
    python_version,
)

log = get_logger(__name__)

T = TypeVar("T")


class ManagerHost(Protocol):
    """Where the manager of a connection's storage runs: :class:`LocalRay`, :class:`RemoteCluster`."""

    def ensure(self) -> str:
        """Have the manager started, unless it is up; the id of the cluster, for submissions.

        :raises RayWorkflowUnreachableError: for what may work later.
        :raises RayWorkflowError: when it can't be started.
        """

    def close(self) -> None:
        """Leave: the manager is not needed for a start any more. Never raises."""


class RayEngine:
    """Runs one workflow on a cluster, for one try of a task instance.

    :param token: unique for this try; it owns the workflow from its first call here on.
    :param backoff: for calls of a cluster that does not answer.
    :param storage_backoff: for a storage that can't be used, by default the same.
    :param package_version: of the manager that shall take what is submitted.
    :param ensure_interval_s: how often a try whose workflow has not begun sees whether a manager is up.
    """

    def __init__(
        self,
        hook: RayWorkflowHook,
        spec: RunSpec,
        host: ManagerHost,
        *,
        token: str,
        backoff: Backoff,
        storage_backoff: Backoff | None = None,
        package_version: str = __version__,
        ensure_interval_s: float = 2.0,
    ) -> None:
        self._hook = hook
        self._spec = spec
        self._workflow_id = spec.workflow_id
        self._host = host
        self._token = token
        self._backoff = backoff
        self._storage_backoff = storage_backoff or backoff
        self._package_version = package_version
        self._ensure_interval_s = ensure_interval_s
        self._options = StartOptions()
        self._submission: Submission | None = None
        self._epoch_before = 0
        self._has_begun = False
        self._ensured_at = 0.0
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Find out what can't work, before anything is written.

        :raises RayWorkflowInputError: for a runtime_env or a workflow that can't be used.
        """
        self._graph  # noqa: B018 builds it
        self._environment  # noqa: B018 packs it

    def submit(self, options: StartOptions) -> None:
        """Have the cluster start the workflow, resume it, or attach to it.

        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        :raises RayWorkflowStorageError: when the storage does not, or can't be used.
        """
        self._options = options
        self._has_begun = False
        cluster = self._persist(self._ensure_now)
        try:
            self._persist(lambda: with_errors(lambda: self._submit(cluster)))
        except RayWorkflowStorageError:
            self._withdraw_if_possible()  # it may have been written
            raise
        log.info("Workflow %s is submitted", self._workflow_id)

    def attach(self) -> None:
        """Own a workflow that runs already."""
        owner = Owner(
            workflow_id=self._workflow_id, token=self._token, submission_id="", since=time.time()
        )
        with_errors(lambda: self._hook.mailbox.take_over(owner))
        self._has_begun = True

    def rejoin(self) -> None:
        """Go on as the same try in another process."""
        self._has_begun = True

    def has_begun(self) -> bool:
        """True as soon as the cluster's manager has taken what was submitted.

        :raises RayWorkflowStartError: when it could not be started.
        :raises RayWorkflowQueueFullError: when the cluster has no place for the workflow.
        :raises RayWorkflowInputError: when its manager refuses what was submitted.
        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        :raises RayWorkflowStorageError: when the storage can't be used for too long.
        """
        try:
            has_begun = self._see_whether_begun()
        except RayWorkflowStorageError as exc:
            if self._stopping.is_set() or self._storage_backoff.failed() is None:
                self._withdraw_if_possible()
                raise
            log.warning("%s It will be asked again", exc)
            return False
        self._storage_backoff.worked()
        return has_begun

    def _see_whether_begun(self) -> bool:
        submission = self._submission
        if self._has_begun or submission is None:
            return True
        answer = with_errors(
            lambda: self._hook.mailbox.read_answer(self._workflow_id, submission.submission_id)
        )
        if (answer is None or answer.outcome == "failed") and (owner := self._other_owner()):
            self._has_begun = self._has_begun_for(owner, submission)
            return self._has_begun
        if answer is None:
            if time.monotonic() - self._ensured_at >= self._ensure_interval_s:
                self._see_to_manager(submission)
            return False
        with_errors(
            lambda: self._hook.mailbox.delete_answer(self._workflow_id, submission.submission_id)
        )
        self._host.close()
        _check(answer)
        self._has_begun = True
        return True

    def withdraw(self) -> None:
        """Take back what was submitted, unless it has begun; a manager may be starting it just now."""
        submission = self._submission
        if submission is not None and not self._has_begun:
            with_errors(
                lambda: self._hook.mailbox.delete_submission(
                    self._workflow_id, submission.submission_id
                )
            )

    def _withdraw_if_possible(self) -> None:
        with suppress(RayWorkflowStorageError):
            self.withdraw()

    def was_stopped_by_other(self, found: StoredWorkflow) -> bool:
        """True if an earlier try's end has suspended it, while this one owns it already.

        A person who suspended it had the right to.
        """
        return found.record.stopped_by not in ("", self._token, ANYBODY)

    def stop(self, how: How) -> None:
        """Ask the cluster to stop the workflow. Void if another try owns it by now."""
        self._stopping.set()
        self._hook.request_stop(self._workflow_id, token=self._token, how=how)

    def close(self, *, suspend: bool = False) -> None:
        """Let go; the workflow goes on unless it shall be suspended."""
        if suspend:
            try:
                self.stop("suspend")
                self.withdraw()
            except RayWorkflowStorageError as exc:
                log.warning("Workflow %s could not be suspended: %s", self._workflow_id, exc)
        self._host.close()

    @cached_property
    def _graph(self) -> bytes | None:
        """The graph of a function of the DAG file, which the cluster can't import."""
        if self._spec.definition is None or self._spec.definition.function is None:
            return None
        return self._spec.definition.encode().to_bytes()

    @cached_property
    def _environment(self) -> PackedEnvironment:
        return with_archives(self._spec.runtime_env)

    def _submit(self, cluster: str) -> None:
        """Write a submission for a manager of a cluster."""
        store = self._hook.store
        if self._submission is None or self._token != ANYBODY:
            self._epoch_before = store.last_epoch(self._workflow_id)
        for archive in self._environment.archives:  # before its submission is written
            store.archives.use(self._workflow_id, archive, now=time.time())
        submission = self._submission = self._make_submission(cluster)
        # The same again: the call may have written it, and failed after that.
        self._persist(lambda: with_errors(lambda: self._hook.mailbox.submit(submission)))

    def _make_submission(self, cluster: str) -> Submission:
        definition = self._spec.definition
        by_path = definition if definition and not definition.function else None
        return Submission(
            workflow_id=self._workflow_id,
            submission_id=uuid.uuid4().hex,
            token=self._token,
            cluster=cluster,
            epoch=self._epoch_before,
            workflow=by_path.name if by_path else "",
            arguments=by_path.arguments if by_path else {},
            user_metadata=self._spec.metadata,
            on_existing="restart" if self._options.on_existing == "restart" else "resume",
            on_change=self._options.on_change or "reuse",
            on_failure=self._options.on_failure,
            from_task=self._options.from_task,
            submitted_at=time.time(),
            python=python_version(),
            package_version=self._package_version,
            max_running_workflows=self._spec.limits.max_running,
            max_pending_workflows=self._spec.limits.max_pending,
            retention=dict(self._hook.settings.retention),
            connection=self._hook.ray_workflow_conn_id,
            graph=self._graph,
            runtime_env=self._environment.runtime_env,
            traceparent=current_traceparent(),
        )

    def _other_owner(self) -> Owner | None:
        """The task instance with the same id that has taken the workflow over since; None for none."""
        if self._token == ANYBODY:
            return None
        owner = with_errors(lambda: self._hook.mailbox.read_owner(self._workflow_id))
        return owner if owner and owner.token != self._token else None

    def _has_begun_for(self, owner: Owner, submission: Submission) -> bool:
        """True if the workflow has begun for another owner. If that one could not, submit it again."""
        mailbox = self._hook.mailbox
        # In this order: it begins before its submission is deleted.
        is_open = with_errors(lambda: mailbox.is_open(self._workflow_id, owner.submission_id))
        if self._is_begun(self._hook.find(self._workflow_id)):
            with_errors(lambda: mailbox.delete_answer(self._workflow_id, submission.submission_id))
            self._host.close()
            return True
        if not is_open and not self._stopping.is_set():
            with_errors(lambda: self._submit(self._ensure_now()))
        return False

    def _is_begun(self, found: StoredWorkflow | None) -> bool:
        return found is not None and (
            found.status.is_active or found.record.epoch > self._epoch_before
        )

    def _see_to_manager(self, submission: Submission) -> None:
        """Have a manager that is gone started again; submit again what it will not find."""
        try:
            cluster = self._ensure_now()
        except RayWorkflowUnreachableError as exc:
            if self._backoff.failed() is None:
                self.withdraw()
                raise self._given_up(exc) from exc
            log.warning("%s; it will be asked again", exc)
            return
        except RayWorkflowStorageError:
            raise  # it may be usable again
        except RayWorkflowError:
            self.withdraw()  # a manager that is started later would run it after this try's end
            raise
        self._backoff.worked()
        if cluster != submission.cluster:
            log.warning(
                "The cluster was started anew: workflow %s is submitted again", self._workflow_id
            )
            self.withdraw()
            if with_errors(lambda: _has_run(self._hook, submission)):
                # The manager died before its answer: what the run has committed stays.
                self._options = replace(self._options, on_existing="resume", from_task="")
            with_errors(lambda: self._submit(cluster))
        elif with_errors(lambda: _is_lost(self._hook.mailbox, submission)):
            log.warning(
                "Workflow %s was deleted while it was to begin: it is submitted again",
                self._workflow_id,
            )
            with_errors(lambda: self._submit(cluster))

    def _ensure_now(self) -> str:
        cluster = self._host.ensure()
        self._ensured_at = time.monotonic()
        return cluster

    def _persist(self, call: Callable[[], T]) -> T:
        """Repeat what fails because the cluster or the storage does not answer, for as long as we may."""
        try:
            return self._backoff.retrying(
                lambda: self._storage_backoff.retrying(
                    call,
                    errors=RayWorkflowStorageError,
                    may_pass=lambda exc: exc.is_transient,
                    warn=log.warning,
                    wait=self._stopping.wait,
                    is_stopping=self._stopping.is_set,
                ),
                errors=RayWorkflowUnreachableError,
                warn=log.warning,
                wait=self._stopping.wait,
                is_stopping=self._stopping.is_set,
            )
        except RayWorkflowUnreachableError as exc:
            raise self._given_up(exc) from exc

    def _given_up(self, exc: RayWorkflowUnreachableError) -> RayWorkflowUnreachableError:
        epoch = self._epoch_before
        with suppress(StorageError):  # what was submitted or not yet, it may be there already
            epoch = epoch or self._hook.store.last_epoch(self._workflow_id)
        stands = "is RESUMABLE" if epoch else "has not begun"
        patience_s = self._backoff.timeout_s
        given_up = f" Given up after {patience_s:g} s." if patience_s else ""
        return RayWorkflowUnreachableError(
            f"{str(exc).rstrip('.')}.{given_up} Workflow {self._workflow_id!r} {stands}: the next "
            "try goes on from what is committed, on this cluster or another."
        )


def _is_lost(mailbox: Mailbox, submission: Submission) -> bool:
    """True if a submission was deleted without an answer."""
    names = submission.workflow_id, submission.submission_id
    # In this order: a manager answers before it deletes.
    return not mailbox.is_open(*names) and mailbox.read_answer(*names) is None


def _has_run(hook: RayWorkflowHook, submission: Submission) -> bool:
    """True if the latest run that is stored was begun for a submission, whose answer may be missing."""
    found = hook.find(submission.workflow_id)
    if found is None:
        return False
    try:
        claim = hook.store.read_claim(submission.workflow_id, found.record.epoch)
    except (CorruptedDataError, WorkflowNotFoundError):
        return False  # to start over is the way out of that
    return claim.submission_id == submission.submission_id


def _check(answer: SubmissionAnswer) -> None:
    """Return if a submission was accepted."""
    workflow_id = answer.workflow_id
    if answer.outcome == "queue full":
        raise RayWorkflowQueueFullError(workflow_id)
    if answer.outcome == "refused":
        raise RayWorkflowInputError(f"Workflow {workflow_id!r} can't be run: {answer.message}")
    if answer.outcome == "failed":
        raise RayWorkflowStartError(workflow_id, answer.message)


def with_errors(call: Callable[[], T]) -> T:
    """Call the storage; its errors as the provider's."""
    try:
        return call()
    except StorageError as exc:
        raise RayWorkflowStorageError(str(exc), is_transient=exc.is_transient) from exc
