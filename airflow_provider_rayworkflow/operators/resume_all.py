"""The operator that resumes what was interrupted."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseOperator

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowError,
    RayWorkflowNotResumedError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.connection.jobs_api import Job, RayJobs
    from airflow_provider_rayworkflow.connection.settings import Cluster
    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

T = TypeVar("T")

_MODULE = "airflow_provider_rayworkflow.workflow.runtime.service.resume_all_job"


class RayWorkflowResumeAllOperator(BaseOperator):
    """Resume all workflows of the connection's storage that were interrupted.

    Those whose cluster was lost, for example. On a cluster the task is successful when its manager
    has them all; they go on there. Ray in the task process ends with it, so there the task
    waits for their end. Workflows of which a task instance waits may be among them: it attaches.

    XCom: the ids of the resumed workflows.

    :param include_failed: also those that an error of their own ended.
    :param poll_interval_s: how often the cluster is asked how the job stands.
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. (templated)
    :param unreachable_timeout_s: how long to keep retrying a cluster that can't be reached.
    """

    template_fields: Sequence[str] = ("ray_workflow_conn_id",)
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        include_failed: bool = False,
        poll_interval_s: float = 1.0,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        unreachable_timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.include_failed = include_failed
        self.poll_interval_s = poll_interval_s
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.unreachable_timeout_s = unreachable_timeout_s

    def execute(self, context: Context) -> list[str]:
        """Resume them.

        :raises RayWorkflowNotResumedError: when that failed for some; the others go on.
        :raises RayWorkflowUnreachableError: when the cluster does not answer for too long.
        """
        from airflow_provider_rayworkflow.clusters import local
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        hook.use_signing_secret()
        statuses = {WorkflowStatus.RESUMABLE}
        if self.include_failed:
            statuses.add(WorkflowStatus.FAILED)
        before = hook.list_ids(statuses)
        if not before:
            self.log.info("There is nothing to resume")
            return []
        hook.check_storage()
        if hook.settings.cluster is None:
            local.resume_all(hook, include_failed=self.include_failed)
        else:
            self._run_job(hook, hook.settings.cluster, token=str(context["ti"].id))
        # A resume by anyone raises the epoch; a workflow may be deleted by now.
        after = hook.list_ids(set(WorkflowStatus))
        missed = [name for name, epoch in before.items() if after.get(name) == epoch]
        resumed = [name for name in before if name not in missed]
        self.log.info("%d workflows are resumed, %d are not", len(resumed), len(missed))
        if missed:
            raise RayWorkflowNotResumedError(missed)
        return resumed

    def _run_job(self, hook: RayWorkflowHook, cluster: Cluster, *, token: str) -> None:
        from airflow_provider_rayworkflow.clusters.remote import OWN_MODULES, job_environment
        from airflow_provider_rayworkflow.connection.jobs_api import RayJobs

        jobs = RayJobs(cluster)
        submission_id = f"rayworkflow-resume-all-{token}"
        command = ["python", "-m", _MODULE, "--storage", hook.storage_uri]
        command += ["--own-modules", str(len(OWN_MODULES))]
        command += ["--include-failed"] if self.include_failed else []
        self._retrying(
            partial(
                jobs.submit,
                submission_id=submission_id,
                entrypoint=shlex.join(command),
                runtime_env=job_environment(None),
                metadata={"job_name": "resume-all"},
            )
        )
        job = self._wait(jobs, submission_id)
        for line in self._retrying(partial(jobs.read_log, submission_id)).splitlines():
            self.log.info("%s", escaped(line))
        if not job.was_successful:
            raise RayWorkflowError(f"The Ray job {submission_id!r} failed: {job.message}")

    def _wait(self, jobs: RayJobs, submission_id: str) -> Job:
        while True:
            job = self._retrying(partial(jobs.find, submission_id))
            if job is None:
                raise RayWorkflowUnreachableError(
                    f"The cluster has lost the Ray job {submission_id!r}; the next try asks again."
                )
            if job.has_ended:
                return job
            time.sleep(self.poll_interval_s)

    def _retrying(self, call: Callable[[], T]) -> T:
        """Repeat what fails because the cluster does not answer, for as long as we may."""
        return Backoff(self.unreachable_timeout_s).retrying(
            call, errors=RayWorkflowUnreachableError, warn=self.log.warning
        )
