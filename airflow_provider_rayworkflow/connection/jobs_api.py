"""Ray's Jobs API, as far as workflows need it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx

from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.connection.time_limits import in_thread, within
from airflow_provider_rayworkflow.connection.tokens import Token, token_for
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowError,
    RayWorkflowInputError,
    RayWorkflowUnreachableError,
)

Json = dict[str, Any]

# This package is uploaded in it.
_SUBMIT_TIMEOUT_S = 300.0

_TRY_LATER = (408, 425, 429)
_STATUS_CODE = re.compile(r"status code (\d{3})\b")
_ALREADY_THERE = "already exists"
_WRONG_JOB = re.compile(
    rf"{_ALREADY_THERE}|runtime_?env|^[\w.]*(?:TypeError|ValueError|ValidationError)\b",
    re.IGNORECASE | re.MULTILINE,
)
# How much of an answer an error shows.
_SHOWN = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A Ray job.

    :ivar status: Ray's name for it.
    :ivar message: why it has this status; of a failed one with the end of its log.
    """

    submission_id: str
    status: str
    message: str

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
        return str((self._get("/api/version") or {}).get("ray_version", "?"))

    def session_name(self) -> str:
        """What tells this cluster from every other one, and from itself after a restart."""
        found = self._get("/api/version") or {}
        if not (name := found.get("session_name")):
            raise RayWorkflowConnectionError(
                f"What answers at {self._cluster.address} does not say which Ray cluster it is: is it the "
                "dashboard of Ray 2.60 or later?"
            )
        return str(name)

    def find(self, submission_id: str) -> Job | None:
        """A job, None if the cluster has none of this id."""
        found = self._get(f"/api/jobs/{quote(submission_id, safe='')}", may_be_missing=True)
        if found is None:
            return None
        return Job(
            submission_id=submission_id,
            status=str(found.get("status", "")),
            message=str(found.get("message") or ""),
        )

    def log(self, submission_id: str) -> str:
        """What a job has printed; ``""`` if the cluster has none of this id."""
        path = f"/api/jobs/{quote(submission_id, safe='')}/logs"
        return str((self._get(path, may_be_missing=True) or {}).get("logs") or "")

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
            within(_SUBMIT_TIMEOUT_S, in_thread(submit, name="ray-jobs"))
        except Exception as exc:
            if _ALREADY_THERE in str(exc):
                return
            failure = self._failure_of(exc)
            is_refused = isinstance(failure, RayWorkflowConnectionError)
            if is_refused and self.find(submission_id) is not None:
                return
            raise failure from None  # the cause may have in its text what was sent, a token say

    @cached_property
    def token(self) -> Token:
        """What the requests carry.

        :raises RayWorkflowConnectionError: when the environment names a token that can't be used.
        """
        return token_for(self._cluster.token, self._cluster.headers)

    @property
    def _headers(self) -> dict[str, str]:
        found = "" if self._cluster.token else self.token.value
        return self._cluster.all_headers | ({"Authorization": f"Bearer {found}"} if found else {})

    @cached_property
    def _verify(self) -> ssl.SSLContext | bool:
        cluster = self._cluster
        return ssl.create_default_context(cafile=cluster.ca) if cluster.verify else False

    def _http(self) -> httpx.Client:
        """For one request: nothing would close what is kept open between two."""
        return httpx.Client(
            base_url=self._cluster.address,
            headers=self._headers,
            verify=self._verify,
            timeout=self._cluster.timeout_s,
        )

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        cluster = self._cluster
        return JobSubmissionClient(
            cluster.address,
            headers=self._headers,
            verify=(cluster.ca or True) if cluster.verify else False,
        )

    def _get(self, path: str, *, may_be_missing: bool = False) -> Json | None:
        """What the cluster answers; None if that is a 404 which may be."""
        try:
            with self._http() as client:
                response = client.get(path)
        except httpx.RequestError as exc:
            raise self._unreachable(exc) from exc
        is_page = "html" in response.headers.get("content-type", "")
        if may_be_missing and response.status_code == 404:
            if is_page:  # of what stands before the cluster: Ray answers with text
                raise self._unreachable("it answers 404 with a page that is not Ray's")
            return None
        if not response.is_success:
            raise self._failure(response.status_code, path, response.text)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            kind = (
                "a page"
                if is_page
                else "something else than JSON"
                if response.content
                else "nothing"
            )
            raise self._unreachable(f"it answers {kind} to {path}")
        return answer

    def _failure_of(self, exc: Exception) -> RayWorkflowError:
        """What an exception of Ray's client means."""
        import requests
        from ray.exceptions import AuthenticationError

        if isinstance(exc, AuthenticationError):
            return self._refused_token(401 if "required" in str(exc) else 403)
        if isinstance(exc, requests.RequestException | ConnectionError | TimeoutError):
            return self._unreachable(exc)
        if isinstance(exc, TypeError | ValueError | OSError):  # of what is uploaded
            return RayWorkflowInputError(f"The runtime_env can't be used: {exc}")
        if isinstance(exc, RuntimeError):
            # The agent's answer, a refusal say, comes inside of a 500 of the dashboard's.
            codes = [int(code) for code in _STATUS_CODE.findall(str(exc))]
            code = next((code for code in codes if code < 500), max(codes, default=0))
            if code == 500 and _says_that_the_job_is_wrong(str(exc)):
                return self._refused(f"the job was not taken: {_short(str(exc))}")
            return self._failure(code, "/api/jobs/", str(exc))
        status = getattr(exc, "status", None)  # aiohttp's
        if isinstance(status, int):
            return self._failure(status, "/api/jobs/", str(exc))
        return self._unreachable(exc)

    def _failure(self, code: int, path: str, text: str) -> RayWorkflowError:
        """What an answer with this status code means."""
        if code in (401, 403):
            return self._refused_token(code)
        if code in _TRY_LATER or code >= 500:
            return self._unreachable(f"it answers {code}: {_short(text)}")
        return self._refused(f"it answers {code} to {path}: {_short(text)}")

    def _refused_token(self, code: int) -> RayWorkflowConnectionError:
        token = self.token
        if token.value or "header" in token.source:
            sent = f"to the token from {token.source}"
        else:
            sent = f"and no token was sent ({token.source})"
        return self._refused(
            f"it answers {code} {sent}. Put the cluster's token into the connection's password"
        )

    def _unreachable(self, why: Any) -> RayWorkflowUnreachableError:
        reason = str(why) or type(why).__name__
        return RayWorkflowUnreachableError(
            f"The Ray cluster at {self._cluster.address} can't be reached: {self._hidden(reason)}"
        )

    def _refused(self, why: str) -> RayWorkflowConnectionError:
        return RayWorkflowConnectionError(
            f"The Ray cluster at {self._cluster.address} refused us: {self._hidden(why)}"
        )

    def _hidden(self, text: str) -> str:
        """The text without what we send to the cluster alone: a proxy may say what it was sent."""
        sent = [self._cluster.token, self.token.value, *self._cluster.headers.values()]
        return _without(text, sent)


# Shorter texts stand in any sentence; Airflow's own mask leaves them, too.
_SHORTEST_SECRET = 5


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < _SHORTEST_SECRET:
            break
        for form in {secret, repr(secret)[1:-1], quote(secret, safe="")}:
            text = text.replace(form, "***")
    return text


def _says_that_the_job_is_wrong(text: str) -> bool:
    """True for what the same request would be answered again, however healthy the cluster is."""
    # Of a traceback the exceptions count; its indented lines are lines of Ray's code.
    said = "\n".join(line for line in text.splitlines() if not line.startswith((" ", "\t")))
    return not _is_page(text) and _WRONG_JOB.search(said) is not None


def _short(text: str) -> str:
    """The part of an answer that says most: of a page nothing, of a traceback its end."""
    if _is_page(text):
        return "a page"
    text = text.strip()
    return text if len(text) <= _SHOWN else f"… {text[-_SHOWN:]}"


def _is_page(text: str) -> bool:
    return "<html" in text.lower() or "<!doctype" in text.lower()
