"""A ready-made ``retry_policy`` for tasks that run workflows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowFailedError,
    RayWorkflowInterruptedError,
    RayWorkflowNotFoundError,
    RayWorkflowQueueFullError,
    RayWorkflowStillActiveError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.workflow.model.causes import Cause

if TYPE_CHECKING:
    from airflow.sdk import Context

_OUTAGES = (
    RayWorkflowUnreachableError,
    RayWorkflowStorageError,
    RayWorkflowQueueFullError,
    RayWorkflowStillActiveError,
)
_REPAIRED_BY_PEOPLE = (RayWorkflowConnectionError, RayWorkflowNotFoundError)


class RayWorkflowRetryPolicy(RetryPolicy):
    """Retry what may be better later, at its own pace, and nothing that a person has to repair.

    ======================================= =====================================================
    what the try failed with                what follows
    ======================================= =====================================================
    a workflow task failed (``Failed``)     no retry if its exception is one of ``fail_on``; else
                                            as the task's ``retry_delay`` says
    the workflow was stopped                no retry if its cause is one of ``fail_on_causes``;
    (``Interrupted``)                       else one after ``resume_delay``
    cluster or storage can't be reached, no a retry after ``outage_delay``
    place, still active elsewhere
    the connection can't be used, no such   no retry
    workflow
    anything else                           as Airflow does without a policy
    ======================================= =====================================================

    All of it within the task's ``retries``; Airflow retries no ``RayWorkflowInputError``,
    ``RayWorkflowCanceledError`` and ``RayWorkflowEndedError`` under any policy.

    :param fail_on: names of exceptions of workflow tasks for which a retry is no use, as
        :attr:`RayWorkflowFailedError.error_type` has them: ``"ValueError"``,
        ``"pipelines.errors.BadInput"``. Names, since nothing of the cluster's is unpickled here;
        subclasses are not meant.
    :param fail_on_causes: causes for which a resume is no use, as
        :attr:`RayWorkflowInterruptedError.cause` has them: ``"out_of_memory"``, ``"crashed"``.
    :param resume_delay: before an interrupted workflow is resumed.
    :param outage_delay: before something that can't be reached is asked again.
    """

    def __init__(
        self,
        *,
        fail_on: Collection[str] = (),
        fail_on_causes: Collection[str] = (),
        resume_delay: timedelta = timedelta(seconds=10),
        outage_delay: timedelta = timedelta(minutes=5),
    ) -> None:
        if isinstance(fail_on, str):
            raise ValueError(f"fail_on must be a list of names, not {fail_on!r}.")
        self.fail_on = sorted(fail_on)
        self.fail_on_causes = _causes(fail_on_causes)
        self.resume_delay = resume_delay
        self.outage_delay = outage_delay

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """What follows from a failed try; called by Airflow."""
        name = type(exception).__name__
        match exception:
            case RayWorkflowFailedError(error_type=error) if error in self.fail_on:
                return RetryDecision.fail(f"{error} is one of fail_on")
            case RayWorkflowInterruptedError(cause=cause) if cause in self.fail_on_causes:
                return RetryDecision.fail(f"{cause} is one of fail_on_causes")
            case RayWorkflowInterruptedError():
                return RetryDecision.retry(self.resume_delay, f"{name}: the next try resumes")
            case exc if isinstance(exc, _OUTAGES):
                return RetryDecision.retry(self.outage_delay, f"{name}: it may be better later")
            case exc if isinstance(exc, _REPAIRED_BY_PEOPLE):
                return RetryDecision.fail(f"{name}: a person has to repair that")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        return {
            "fail_on": self.fail_on,
            "fail_on_causes": self.fail_on_causes,
            "resume_delay": self.resume_delay.total_seconds(),
            "outage_delay": self.outage_delay.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RayWorkflowRetryPolicy:
        return cls(
            fail_on=data["fail_on"],
            fail_on_causes=data["fail_on_causes"],
            resume_delay=timedelta(seconds=data["resume_delay"]),
            outage_delay=timedelta(seconds=data["outage_delay"]),
        )


def _causes(names: Collection[str]) -> list[str]:
    valid = [cause.value for cause in Cause if not cause.is_of_task]
    if isinstance(names, str) or not set(names) <= set(valid):
        raise ValueError(f"fail_on_causes must be a list of {valid}, not {names!r}.")
    return sorted(names)
