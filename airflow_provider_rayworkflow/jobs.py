"""Ray's Jobs API, as far as workflows need it."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from airflow_provider_rayworkflow.connections import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowInputError,
    RayWorkflowUnreachableError,
)

log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

# Code of the author's is uploaded in it.
_SUBMIT_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A Ray job.

    :ivar status: Ray's name for it.
    :ivar message: why it has this status; of a failed one with the end of its log.
    :ivar exit_code: of its driver; None while that runs, and if Ray could not start it.
    """

    submission_id: str
    status: str
    message: str
    exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def was_successful(self) -> bool:
        return self.status == "SUCCEEDED"


class RayJobs:
    """The jobs of one cluster. Nothing is connected before the first call; every call blocks.

    Each raises :class:`RayWorkflowUnreachableError` when the cluster does not answer, and
    :class:`RayWorkflowConnectionError` when it refuses us.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def version(self) -> str:
        """The cluster's Ray version."""
        return str(self._get("/api/version").json().get("ray_version", "?"))

    def find(self, submission_id: str) -> Job | None:
        """A job, None if the cluster has none of this id."""
        response = self._get(f"/api/jobs/{quote(submission_id, safe='')}", may_be_missing=True)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        found = response.json()
        return Job(
            submission_id=submission_id,
            status=str(found.get("status", "")),
            message=str(found.get("message") or ""),
            exit_code=found.get("driver_exit_code"),
        )

    def submit(
        self,
        *,
        submission_id: str,
        entrypoint: str,
        runtime_env: Json,
        metadata: dict[str, str],
    ) -> None:
        """Submit a job, with the local folders that its runtime environment names.

        Submitting the same id again changes nothing.

        :raises RayWorkflowInputError: when the runtime environment can't be used.
        """
        self.version()  # with a time limit; Ray's client has none

        def submit() -> None:
            self._client().submit_job(
                submission_id=submission_id,
                entrypoint=entrypoint,
                runtime_env=runtime_env,
                metadata=metadata,
            )

        try:
            _within(_SUBMIT_TIMEOUT_S, submit)
        except (OSError, TimeoutError) as exc:  # also what the requests library raises
            raise self._unreachable(exc) from exc
        except (TypeError, ValueError) as exc:
            raise RayWorkflowInputError(f"The runtime_env can't be used: {exc}") from exc
        except RuntimeError as exc:
            if "already exists" in str(exc):
                return
            if self.find(submission_id) is None:
                raise self._refused(f"the job was not taken: {exc}") from exc

    def read_log(self, submission_id: str) -> str:
        """What a job has printed until now."""
        response = self._get(f"/api/jobs/{quote(submission_id, safe='')}/logs")
        return str(response.json().get("logs") or "")

    async def tail_log(self, submission_id: str) -> AsyncIterator[str]:
        """What a job prints, from its beginning to its end, while it comes."""
        async for text in self._client().tail_job_logs(submission_id):
            yield text

    @cached_property
    def _verify(self) -> ssl.SSLContext | bool:
        cluster = self._cluster
        return ssl.create_default_context(cafile=cluster.ca) if cluster.verify else False

    def _http(self) -> httpx.Client:
        """For one request: nobody would close what is kept open between two."""
        return httpx.Client(
            base_url=self._cluster.address,
            headers=self._cluster.all_headers,
            verify=self._verify,
            timeout=self._cluster.timeout_s,
        )

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        cluster = self._cluster
        return JobSubmissionClient(
            cluster.address,
            headers=cluster.all_headers,
            verify=(cluster.ca or True) if cluster.verify else False,
        )

    def _get(self, path: str, *, may_be_missing: bool = False) -> httpx.Response:
        try:
            with self._http() as client:
                response = client.get(path)
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc
        if response.is_success or (may_be_missing and response.status_code == 404):
            return response
        if response.status_code in (401, 403):
            raise self._refused(
                f"it answers {response.status_code} to our token. Put the cluster's token into "
                "the connection's password"
            )
        if response.is_server_error or response.status_code in (408, 429):
            raise self._unreachable(f"it answers {response.status_code}")
        raise self._refused(f"it answers {response.status_code} to {path}: {response.text:.500}")

    def _unreachable(self, why: Any) -> RayWorkflowUnreachableError:
        reason = str(why) or type(why).__name__
        return RayWorkflowUnreachableError(
            f"The Ray cluster at {self._cluster.address} can't be reached: {reason}"
        )

    def _refused(self, why: str) -> RayWorkflowConnectionError:
        return RayWorkflowConnectionError(
            f"The Ray cluster at {self._cluster.address} refused us: {why}"
        )


def _within(timeout_s: float, function: Callable[[], T]) -> T:
    """Call a function that knows no time limit.

    :raises TimeoutError: when it takes longer; it is left to itself then.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, name="ray-jobs", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    return results[0]
