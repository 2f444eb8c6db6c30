"""One workflow on a remote Ray cluster, which is reached through its Jobs API."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import cloudpickle

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.clusters.job_logs import JobLog
from airflow_provider_rayworkflow.connection.jobs_api import RayJobs
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowJobError,
    RayWorkflowQueueFullError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.definition import check_environment
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.execution.trace_context import current_traceparent
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    QUEUE_FULL_EXIT_CODE,
    REFUSED_EXIT_CODE,
    How,
    Owner,
    Submission,
    python_version,
)

log = get_logger(__name__)

Json = dict[str, Any]

_ENTRYPOINT = ("python", "-m", "airflow_provider_rayworkflow.workflow.runtime.service.job")
#: Folders that the cluster gets with each job: it needs no more than Ray and pyarrow.
OWN_MODULES = tuple(
    str(Path(module.__file__ or "").parent)
    for module in (airflow_provider_rayworkflow, cloudpickle)
)
_EXCLUDED = ("__pycache__", "*.pyc")  # they differ from machine to machine, the package does not

_MAX_RESUBMISSIONS = 3
# A busy cluster has taken more than ten seconds for the rest of the output of a job that has ended.
_LOG_TIMEOUT_S = 30.0


class RemoteRay:
    """Runs one workflow on a cluster, for one try of a task instance.

    The submission lies in the storage before the job is submitted that reads it; so neither
    the job's command line nor Ray's dashboard show arguments.

    :param token: unique for this try; it owns the workflow from its first call here on.
    :param backoff: for calls of a cluster that does not answer.
    :param on_job: is told the id of the Ray job that this try follows, before it waits.
    """

    ends_with_process = False

    def __init__(
        self,
        hook: RayWorkflowHook,
        cluster: Cluster,
        spec: RunSpec,
        *,
        token: str,
        backoff: Backoff,
        on_job: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._hook = hook
        self._on_job = on_job
        self._jobs = RayJobs(cluster)
        self._spec = spec
        self._workflow_id = spec.workflow_id
        self._token = token
        self._backoff = backoff
        self._job_backoff = Backoff(backoff.timeout_s)
        self._options = StartOptions()
        self._submissions = 0
        self._submission_id = ""
        self._epoch_before = 0
        self._has_begun = False
        self._log: JobLog | None = None
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Find out what can't work, before anything is written.

        :raises RayWorkflowInputError: for a runtime_env or a workflow that can't be used.
        """
        self._graph  # noqa: B018 builds it
        job_environment(self._spec.runtime_env)

    def submit(self, options: StartOptions) -> None:
        """Have the cluster start the workflow, resume it, or attach to it.

        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        """
        self._options = options
        self._submissions += 1
        self._has_begun = False
        try:
            self._submission_id = self._next_submission_id()
            self._epoch_before = self._hook.store.last_epoch(self._workflow_id)
            self._hook.mailbox.write_submission(self._submission())
            self._take_over(self._submission_id)
        except StorageError as exc:
            raise RayWorkflowStorageError(str(exc)) from exc
        try:
            self._backoff.retrying(
                self._submit_job,
                errors=RayWorkflowUnreachableError,
                warn=log.warning,
                wait=self._stopping.wait,
                is_stopping=self._stopping.is_set,
            )
        except RayWorkflowUnreachableError as exc:
            raise self._given_up(exc) from exc
        log.info("Ray job %s is submitted", self._submission_id)
        self._follow(self._submission_id)

    def attach(self) -> None:
        """Own a workflow that runs already, and show what its latest job prints."""
        try:
            previous = self._hook.mailbox.read_owner(self._workflow_id)
            submission_id = previous.submission_id if previous else ""
            self._take_over(submission_id)
        except StorageError as exc:
            raise RayWorkflowStorageError(str(exc)) from exc
        self._has_begun = True
        if submission_id:
            self._follow(submission_id)

    def rejoin(self, carried: Json) -> None:
        """Go on as the same try in another process: show what its job has printed meanwhile."""
        self._has_begun = True
        if carried["submission_id"]:
            self._follow(carried["submission_id"], taken=carried["log_taken"])

    @property
    def carried(self) -> Json:
        if self._log is None:
            return {"submission_id": "", "log_taken": 0}
        return {"submission_id": self._log.submission_id, "log_taken": self._log.taken}

    def has_begun(self, found: StoredWorkflow | None) -> bool:
        """True as soon as what is found in the storage is what was submitted.

        :raises RayWorkflowJobError: when the job ended before that.
        :raises RayWorkflowQueueFullError: when the cluster has no place for the workflow.
        :raises RayWorkflowInputError: when its manager refuses what was submitted.
        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        """
        if self._has_begun or self._is_ours(found):
            self._has_begun = True
            return True
        try:
            job = self._jobs.find(self._submission_id)
            self._job_backoff.worked()
        except RayWorkflowUnreachableError as exc:
            if self._job_backoff.failed() is None:
                raise self._given_up(exc) from exc
            log.warning("%s; it will be asked again", exc)
            return False
        if job is None:
            if self._submissions > _MAX_RESUBMISSIONS:
                raise RayWorkflowJobError(
                    self._workflow_id, self._submission_id, "The cluster does not know it."
                )
            log.warning("The cluster has lost the Ray job %s: submitting", self._submission_id)
            self.submit(self._options)
        elif job.was_successful or (job.has_ended and self._is_ours(self._find())):
            self._has_begun = True  # look once more at what is stored
        elif job.exit_code == QUEUE_FULL_EXIT_CODE:
            raise RayWorkflowQueueFullError(self._workflow_id)
        elif job.exit_code == REFUSED_EXIT_CODE:
            raise RayWorkflowInputError(
                f"Workflow {self._workflow_id!r} can't be run: {job.message}"
            )
        elif job.has_ended:
            raise RayWorkflowJobError(self._workflow_id, self._submission_id, job.message)
        return False

    def was_stopped_by_other(self, found: StoredWorkflow) -> bool:
        """True if an earlier try's end has suspended it, while this one owns it already.

        A person who suspended it had the right to.
        """
        return found.record.stopped_by not in ("", self._token, ANYBODY)

    def stop(self, how: How) -> None:
        """Ask the cluster to stop the workflow. Void if another try owns it by now."""
        self._stopping.set()
        self._hook.request_stop(self._workflow_id, token=self._token, how=how)

    def close(self, *, suspend: bool = False, detach: bool = False) -> None:
        """Let go of the cluster; the workflow goes on unless it shall be suspended.

        :param detach: what its job prints is copied by another process of the same try.
        """
        is_killed = self._stopping.is_set()
        if suspend:
            try:
                self.stop("suspend")
            except RayWorkflowStorageError as exc:
                log.warning("Workflow %s could not be suspended: %s", self._workflow_id, exc)
        if self._log is not None:
            self._log.finish(0.0 if detach or is_killed else _LOG_TIMEOUT_S)

    @cached_property
    def _graph(self) -> bytes | None:
        """The graph of a function of the DAG file, which the cluster can't import."""
        if self._spec.definition is None or self._spec.definition.function is None:
            return None
        return self._spec.definition.encode().to_bytes()

    def _submission(self) -> Submission:
        definition = self._spec.definition
        by_path = definition if definition and not definition.function else None
        return Submission(
            workflow_id=self._workflow_id,
            submission_id=self._submission_id,
            token=self._token,
            workflow=by_path.name if by_path else "",
            arguments=by_path.arguments if by_path else {},
            user_metadata=self._spec.metadata,
            on_existing="restart" if self._options.on_existing == "restart" else "resume",
            on_change=self._options.on_change or "reuse",
            from_task=self._options.from_task,
            submitted_at=time.time(),
            python=python_version(),
            package_version=__version__,
            max_running_workflows=self._spec.limits.max_running,
            max_pending_workflows=self._spec.limits.max_pending,
            graph=self._graph,
            traceparent=current_traceparent(),
        )

    def _submit_job(self) -> None:
        entrypoint = [*_ENTRYPOINT, "--storage", self._hook.storage_uri]
        entrypoint += ["--workflow-id", self._workflow_id]
        entrypoint += ["--submission-id", self._submission_id]
        entrypoint += ["--own-modules", str(len(OWN_MODULES))]
        self._jobs.submit(
            submission_id=self._submission_id,
            entrypoint=shlex.join(entrypoint),
            runtime_env=job_environment(self._spec.runtime_env),
            metadata={"job_name": self._workflow_id},
        )

    def _take_over(self, submission_id: str) -> None:
        self._hook.mailbox.take_over(
            Owner(
                workflow_id=self._workflow_id,
                token=self._token,
                submission_id=submission_id,
                since=time.time(),
            )
        )

    def _next_submission_id(self) -> str:
        """A new one: an earlier process of this try may have submitted, too."""
        prefix, number = f"rayworkflow-{self._token}-", 0
        owner = self._hook.mailbox.read_owner(self._workflow_id)
        if owner is not None and owner.submission_id.startswith(prefix):
            number = int(owner.submission_id.removeprefix(prefix))
        return f"{prefix}{number + 1}"

    def _follow(self, submission_id: str, *, taken: int = 0) -> None:
        if self._log is not None:
            self._log.finish(_LOG_TIMEOUT_S)
        self._on_job(submission_id)
        self._log = JobLog(
            submission_id,
            self._jobs.tail_log,
            write=lambda line: log.info("%s", line),
            taken=taken,
        )
        self._log.start()

    def _is_ours(self, found: StoredWorkflow | None) -> bool:
        if found is None:
            return False
        attached = self._options.on_existing == "resume" and found.status.is_active
        return attached or found.record.epoch > self._epoch_before

    def _find(self) -> StoredWorkflow | None:
        return self._hook.find(self._workflow_id)

    def _given_up(self, exc: RayWorkflowUnreachableError) -> RayWorkflowUnreachableError:
        stands = "is RESUMABLE" if self._epoch_before else "has not begun"
        return RayWorkflowUnreachableError(
            f"{exc}. Given up after {self._backoff.timeout_s:g} s. Workflow "
            f"{self._workflow_id!r} {stands}: the next try goes on from what is committed, on "
            "this cluster or another."
        )


def job_environment(runtime_env: Json | None) -> Json:
    """The author's runtime environment, with this package in it.

    :raises RayWorkflowInputError: when it is no dict of JSON.
    """
    given = check_environment(runtime_env)
    modules = given.get("py_modules") or []
    if not isinstance(modules, (list, tuple)):
        raise RayWorkflowInputError("runtime_env['py_modules'] must be a list of paths or URIs.")
    return given | {
        "py_modules": [*OWN_MODULES, *modules],
        "excludes": [*(given.get("excludes") or []), *_EXCLUDED],
    }
