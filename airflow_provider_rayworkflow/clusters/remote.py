"""A remote Ray cluster, which is reached through its Jobs API: where a manager is started for a storage."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cloudpickle

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.connection.jobs_api import Job, RayJobs
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import RayWorkflowManagerError, RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.runtime.names import MANAGER_IS_UP
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S

log = get_logger(__name__)

_ENTRYPOINT = "airflow_provider_rayworkflow.workflow.runtime.service.manager_job"
#: Folders that the cluster gets with the manager's job: it needs no more than Ray and pyarrow.
OWN_MODULES = tuple(
    str(Path(module.__file__ or "").parent)
    for module in (airflow_provider_rayworkflow, cloudpickle)
)
_MOST_VAIN_JOBS = 3
# Ray takes up to half a minute to see that a node has died, and starts the manager on another one.
_UP_AND_NOT_SEEN_S = 60.0
# So long a manager whose clock is not ours gets to renew its lease once more.
_DOUBT_S = LEASE_TTL_S / 2
_NOT_SEEN = (
    "has started one, which can't be seen in the storage from here. Both sides need the same storage, not "
    "two folders of one name, and the same signing keys; and the cluster has to be able to use the storage "
    "still: the log of the actor WorkflowManagementActor, on Ray's dashboard, says so if it is not."
)
_EXCLUDED = ("__pycache__", "*.pyc")  # they differ from machine to machine, the package does not


class RemoteCluster:
    """Sees to it that a cluster has a manager for the storage of a connection, of this version.

    A Ray job starts it, and stays with it: one for each storage and version. Several tries that ask at once
    submit one job.

    :param own_modules: what the cluster gets of this package.
    :param package_version: its version.
    :param clock: seconds, from whatever beginning.
    """

    def __init__(
        self,
        hook: RayWorkflowHook,
        cluster: Cluster,
        *,
        own_modules: Sequence[str] = OWN_MODULES,
        package_version: str = __version__,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hook = hook
        self._own_modules = own_modules
        self._package_version = package_version
        self._clock = clock
        self._jobs = RayJobs(cluster)
        self._job_id = ""
        self._vain_jobs = 0
        self._doubtful_since: float | None = None
        self._up_since: float | None = None

    def ensure(self) -> str:
        """Have the manager started, unless it is up. Does not wait for its start; call it again.

        One request of the Jobs API, a listing and a read for each manager that the storage knows; three
        requests more while the manager starts.

        :returns: the id of the cluster, for submissions.
        :raises RayWorkflowUnreachableError: when the cluster does not answer.
        :raises RayWorkflowManagerError: when the job has failed, or the manager does not show up in the
            storage: its job has said for a minute that it is up, or three such jobs have ended.
        :raises RayWorkflowStorageError: when the storage can't be read.
        """
        cluster_id = self._jobs.session_name()
        if self._has_manager(cluster_id):
            self._job_id, self._vain_jobs, self._up_since = "", 0, None
        elif not self._job_id or self._has_ended(self._job_id):
            self._job_id, self._up_since = self._start(), None
        return cluster_id

    def close(self) -> None:
        """Nothing to do: no call leaves anything open."""

    def _has_manager(self, cluster_id: str) -> bool:
        leases = self._hook.store.leases
        try:
            found = [lease for lease in leases.list_all() if lease.cluster == cluster_id]
        except StorageError as exc:
            raise RayWorkflowStorageError(str(exc), is_transient=exc.is_transient) from exc
        judged = {
            leases.watch.judge(lease, time.time())
            for lease in found
            if lease.package_version == self._package_version
        }
        if "alive" in judged or "doubtful" not in judged:
            self._doubtful_since = None
            return "alive" in judged
        # Where clocks differ, a first look can't tell, and each try would submit a job in vain.
        now = leases.watch.clock()
        self._doubtful_since = self._doubtful_since or now
        return now - self._doubtful_since < _DOUBT_S

    def _has_ended(self, job_id: str) -> bool:
        """True if the job did what it should, and yet there is no manager: it may have died since.

        :raises RayWorkflowManagerError: as :meth:`ensure`.
        """
        job = self._jobs.find(job_id)
        if job is None:
            return True
        if not job.has_ended:
            self._check_that_it_is_seen(job_id)
            return False
        self._vain_jobs += 1
        if not job.was_successful or self._vain_jobs >= _MOST_VAIN_JOBS:
            message = _NOT_SEEN if job.was_successful else f"has failed. {job.message}"
            raise RayWorkflowManagerError(self._hook.shown_storage, job_id, message)
        return True

    def _check_that_it_is_seen(self, job_id: str) -> None:
        """Raise if the job has said for long that the manager is up, which the storage does not have."""
        if self._up_since is None:
            self._up_since = self._clock() if MANAGER_IS_UP in self._jobs.log(job_id) else None
        elif self._clock() - self._up_since > _UP_AND_NOT_SEEN_S:
            raise RayWorkflowManagerError(self._hook.shown_storage, job_id, _NOT_SEEN)

    def _start(self) -> str:
        """Submit the job, or find the one that another try has submitted; its id."""
        job_id, job = self._latest()
        if job is None:
            command = ["python", "-m", _ENTRYPOINT, "--storage", self._hook.storage_uri]
            self._jobs.submit(
                submission_id=job_id,
                entrypoint=shlex.join(command),
                runtime_env={"py_modules": list(self._own_modules), "excludes": list(_EXCLUDED)},
                metadata={"job_name": "rayworkflow-manager"},
            )
            log.info("Ray job %s starts the workflow manager of the cluster", job_id)
        else:
            log.info("Waiting for Ray job %s, which starts the workflow manager", job_id)
        return job_id

    def _latest(self) -> tuple[str, Job | None]:
        """The first of the numbered jobs that has not ended; None with its id if it is not there yet.

        Jobs stay as long as the cluster: there may be thousands that have failed, so not each is asked for.
        """
        ended, number = 0, 1
        open_job = self._jobs.find(f"{self._prefix()}{number}")
        while open_job is not None and open_job.has_ended:
            ended, number = number, 2 * number
            open_job = self._jobs.find(f"{self._prefix()}{number}")
        while number - ended > 1:
            middle = (ended + number) // 2
            job = self._jobs.find(f"{self._prefix()}{middle}")
            if job is not None and job.has_ended:
                ended = middle
            else:
                number, open_job = middle, job
        return f"{self._prefix()}{number}", open_job

    def _prefix(self) -> str:
        named = f"{self._hook.storage_uri}\n{self._package_version}".encode(errors="surrogatepass")
        return f"rayworkflow-manager-{hashlib.sha256(named).hexdigest()[:16]}-"
