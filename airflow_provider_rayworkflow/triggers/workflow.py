"""The wait of a deferred task instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rayworkflow.exceptions import RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.decision import OnKill
from airflow_provider_rayworkflow.tries.deferral import least_deferral_s
from airflow_provider_rayworkflow.tries.kill import how_to_stop_deferred
from airflow_provider_rayworkflow.tries.task_instance import state_of_deferred
from airflow_provider_rayworkflow.tries.workflow_log import LOOK_S, WorkflowLog
from airflow_provider_rayworkflow.triggers.poll import Standing, Watch
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.progress import Throttle
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.mailbox import How

log = get_logger(__name__)

Json = dict[str, Any]

#: Why a trigger fired: the workflow has one of the statuses, its task has finished, the deadline
#: passed, or the storage could not be read for too long.
Reason = Literal["status", "task", "deadline", "unreachable"]

_ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerTimes:
    """In seconds.

    :param deferral_s: how long the deferral of a task instance lasts at least; None for what
        Airflow needs (:func:`least_deferral_s`).
    :param last_look_s: how long a storage that hangs may put off the deadline.
    :param progress_s: how often at most it is read how far the workflow is.
    :param log_look_s: how often at most its log is read.
    """

    deferral_s: float | None = None
    last_look_s: float = 10.0
    progress_s: float = 30.0
    log_look_s: float = LOOK_S

    def least_s(self) -> float:
        return least_deferral_s() if self.deferral_s is None else self.deferral_s


class RayWorkflowTrigger(BaseTrigger):
    """Fires once, when a workflow has one of some statuses, or one of its tasks has finished.

    Reads the storage only, in threads; all triggers of one connection share one look a round.
    Its event is ``{"reason", "workflow_id", "status", "error", "carried"}``, see :data:`Reason`.

    :param statuses: names of :class:`WorkflowStatus`; ``"NONE"`` if nothing is
        stored.
    :param workflow_task_id: a task of the workflow to wait for besides.
    :param deadline: when to give up waiting, in seconds since the epoch; None for never.
    :param unreachable_timeout_s: how long to keep retrying a storage that can't be read.
    :param token: of the try that owns the workflow; ``""`` if it must not be stopped from here.
    :param on_kill: what becomes of the workflow when a person ends the deferred task instance.
        Void if a later try has taken the workflow over by then.
    :param carried: JSON for the event: what the next part of the task has to know. ``"log"`` in it
        (:attr:`WorkflowLog.carried`): what the workflow's tasks print is shown from there on, in the
        log of the triggerer. One that begins anew, in another triggerer, shows it again.
    :param times: not stored: in a triggerer they are the defaults.
    """

    def __init__(
        self,
        *,
        workflow_id: str,
        statuses: Sequence[str],
        ray_workflow_conn_id: str,
        poll_interval_s: float,
        workflow_task_id: str | None = None,
        deadline: float | None = None,
        unreachable_timeout_s: float = 600.0,
        token: str = "",
        on_kill: OnKill = "leave",
        carried: Json | None = None,
        times: TriggerTimes = TriggerTimes(),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.workflow_id = workflow_id
        self.statuses = list(statuses)
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.poll_interval_s = poll_interval_s
        self.workflow_task_id = workflow_task_id
        self.deadline = deadline
        self.unreachable_timeout_s = unreachable_timeout_s
        self.token = token
        self.kill_policy: OnKill = on_kill
        self.carried = carried or {}
        self._times = times
        self._workflow_log: WorkflowLog | None = None

    def serialize(self) -> tuple[str, Json]:
        return (
            "airflow_provider_rayworkflow.triggers.RayWorkflowTrigger",
            {
                "workflow_id": self.workflow_id,
                "statuses": self.statuses,
                "ray_workflow_conn_id": self.ray_workflow_conn_id,
                "poll_interval_s": self.poll_interval_s,
                "workflow_task_id": self.workflow_task_id,
                "deadline": self.deadline,
                "unreachable_timeout_s": self.unreachable_timeout_s,
                "token": self.token,
                "on_kill": self.kill_policy,
                "carried": self.carried,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait. Begins anew in another triggerer, and leaves nothing there or here.

        The event of a deferred task instance comes no sooner than
        :attr:`TriggerTimes.deferral_s` after this has begun, which is after the deferral by
        any clock.
        """
        earliest = time.monotonic() + (self._times.least_s() if self.task_instance else 0.0)
        event = await self._wait()
        await asyncio.sleep(max(0.0, earliest - time.monotonic()))
        yield event

    async def on_kill(self) -> None:
        """A person ended or cleared the deferred task instance; never at a triggerer's restart."""
        if not self.token:
            return
        state = await self._state()
        how = how_to_stop_deferred(state, self.kill_policy)
        log.info("The deferred task instance is %s: workflow %s: %s", state, self.workflow_id, how)
        if how != "leave":
            await asyncio.to_thread(self._request_stop, how)

    async def _wait(self) -> TriggerEvent:
        backoff = Backoff(self.unreachable_timeout_s)
        if "log" in self.carried:
            self._workflow_log = WorkflowLog(self.workflow_id, look_s=self._times.log_look_s)
            self._workflow_log.rejoin(self.carried["log"])
        throttle = Throttle()
        status = WorkflowStatus.NONE
        with Watch(
            self.ray_workflow_conn_id,
            self.workflow_id,
            interval_s=self.poll_interval_s,
            task_id=self.workflow_task_id,
            progress_s=self._times.progress_s if self.token else None,  # of its own workflow
            log=self._workflow_log,
        ) as watch:
            while True:
                try:
                    standing = await self._next(watch)
                except RayWorkflowStorageError as exc:
                    if backoff.failed() is None:
                        return self._event("unreachable", status, error=str(exc))
                    log.warning("Workflow %s: %s", self.workflow_id, exc)
                else:
                    backoff.worked()
                    status = standing.status if standing else status
                    progress = standing.progress if standing and self.token else ""
                    if progress and throttle.is_due(progress, time.monotonic()):
                        log.info("Workflow %s: %s", self.workflow_id, progress)
                    if self._workflow_log is not None:
                        self._workflow_log.show()
                    if standing and self.workflow_task_id in standing.finished:
                        return self._event("task", status)
                    if standing and status in self.statuses:
                        return self._event("status", status)
                # The status counts more than the clock: what has ended has ended.
                if self.deadline is not None and time.time() >= self.deadline:
                    return self._event("deadline", status)

    async def _next(self, watch: Watch) -> Standing | None:
        """The next look's answer, None if it does not come until the deadline, or soon after."""
        if self.deadline is None:
            return await watch.next()
        left_s = max(0.0, self.deadline - time.time())
        try:
            async with asyncio.timeout(left_s + self._times.last_look_s):
                return await watch.next()
        except TimeoutError:
            return None

    def _event(self, reason: Reason, status: WorkflowStatus, *, error: str = "") -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call] # Airflow's
            {
                "reason": reason,
                "workflow_id": self.workflow_id,
                "status": status.value,
                "error": error,
                "carried": self._carried_on(),
            }
        )

    def _carried_on(self) -> Json:
        """With how much of the workflow's log has been shown meanwhile."""
        return (
            self.carried
            if self._workflow_log is None
            else {**self.carried, "log": self._workflow_log.carried}
        )

    async def _state(self) -> str | None:
        """The task instance's state for Airflow by now; None if it can't be had."""
        ti = self.task_instance
        if ti is None:  # Airflow runs the DAG without its processes
            return None
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return await asyncio.to_thread(state_of_deferred, ti)
        except TimeoutError:
            return None

    def _request_stop(self, how: How) -> None:
        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        hook.request_stop(self.workflow_id, token=self.token, how=how)
