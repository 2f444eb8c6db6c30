"""What the operators that bring a workflow to its end have in common.

What only a try needs is imported when there is one: a DAG file is parsed all the time.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowQueueFullError,
    RayWorkflowStillActiveError,
    RayWorkflowStorageError,
    RayWorkflowTimeoutError,
)
from airflow_provider_rayworkflow.links import LeavesLinks, RayDashboardLink, RayWorkflowLink
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.observability.lineage import parent_variables, with_variables
from airflow_provider_rayworkflow.operators.output import output_of
from airflow_provider_rayworkflow.tries import deferral
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.decision import Action, Memory, OnKill, TryDecision
from airflow_provider_rayworkflow.tries.task_instance import (
    asked_for,
    begun_at,
    log_of,
    max_tries_of,
    remember_begin,
    write_memory,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
    from airflow_provider_rayworkflow.tries.run_spec import RunSpec
    from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry

Json = dict[str, Any]

#: XCom keys of the workflow's id and of its connection, there before the task waits.
WORKFLOW_ID_KEY = "workflow_id"
CONN_ID_KEY = "ray_workflow_conn_id"

# How long to leave a cluster alone that has no place for the workflow.
_QUEUE_FULL_WAIT_S = 30.0


class RayWorkflowBaseOperator(LeavesLinks, BaseOperator):
    """Sees one workflow through: in this process, or deferred in the triggerer.

    What its parameters mean is said at the operators that have them.
    """

    operator_extra_links = (RayWorkflowLink(), RayDashboardLink())
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait: bool = True,
        poll_interval_s: float = 1.0,
        on_kill: OnKill = "suspend",
        on_queue_full: Literal["wait", "fail"] = "wait",
        unreachable_timeout_s: float = 600.0,
        from_task: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("on_kill", on_kill, get_args(OnKill))
        check_choice("on_queue_full", on_queue_full, ("wait", "fail"))
        if self.multiple_outputs and not wait:
            raise RayWorkflowInputError(
                "A task with wait=False returns the workflow_id, which multiple_outputs can't take "
                "apart. Leave one of them out."
            )
        if poll_interval_s <= 0:
            raise ValueError(f"poll_interval_s must be more than 0, not {poll_interval_s!r}.")
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.deferrable = deferrable
        self.wait = wait
        self.poll_interval_s = poll_interval_s
        self.kill_policy = on_kill
        self.on_queue_full = on_queue_full
        self.unreachable_timeout_s = unreachable_timeout_s
        self.from_task = from_task
        self.left_links = {}
        self._stop_if_asked: Callable[[], None] | None = None

    @abstractmethod
    def _try_again(self, context: Context, workflow_id: str) -> WorkflowTry:
        """This try, in a process after the one that began it."""

    def execute_complete(self, context: Context, event: Json) -> Any:
        """Take the end of the workflow, or wait again; called when the trigger has fired."""
        workflow_id, carried = event["workflow_id"], event["carried"]
        if event["reason"] == "unreachable":
            raise RayWorkflowStorageError(
                f"{event['error']} Given up after {self.unreachable_timeout_s:g} s. Workflow "
                f"{workflow_id!r} may go on, else it is RESUMABLE: the next try finds out."
            )
        workflow_try = self._try_again(context, workflow_id)
        start = partial(workflow_try.rejoin, carried)
        return self._see_through(workflow_try, start, context, carried["deadline"])

    def resume_execution(self, next_method: str, next_kwargs: Json | None, context: Context) -> Any:
        """Airflow's entry after a deferral; here for the one that it ends by its own clock."""
        self.left_links = None
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as exc:
            from airflow_provider_rayworkflow.hooks import RayWorkflowHook

            ti = context["ti"]
            # Not xcom_pull, which gives a mapped task instance those of all.
            workflow_id = XCom.get_value(ti_key=ti, key=WORKFLOW_ID_KEY)
            RayWorkflowHook(self.ray_workflow_conn_id).request_stop(
                workflow_id, token=str(ti.id), how="suspend"
            )
            raise RayWorkflowTimeoutError(
                workflow_id,
                "The time limit of the deferral (no triggerer has noticed the end of the "
                f"execution_timeout of {self.execution_timeout})",
            ) from exc

    def on_kill(self) -> None:
        """Stop the workflow as ``on_kill`` says, if a person asked for it."""
        if self._stop_if_asked is not None:
            self._stop_if_asked()

    def _connect(self) -> RayWorkflowHook:
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        hook.use_signing_secret()
        return hook

    def _find(self, hook: RayWorkflowHook, workflow_id: str) -> StoredWorkflow | None:
        """What this try decides about: what is stored when an earlier one's stop is over."""
        from airflow_provider_rayworkflow.tries.pending_stop import find_settled

        return find_settled(hook, workflow_id)

    def _make_try(self, hook: RayWorkflowHook, spec: RunSpec, context: Context) -> WorkflowTry:
        """The try of a workflow."""
        from airflow_provider_rayworkflow.clusters.hosts import engine_for
        from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry

        ti = context["ti"]
        if cluster := hook.settings.cluster:
            self._leave_link(ti, RayDashboardLink(), RayDashboardLink.url(cluster.address))
        environment = with_variables(spec.runtime_env, parent_variables(ti))
        return WorkflowTry(
            hook=hook,
            engine=engine_for(
                hook,
                replace(spec, runtime_env=environment),
                token=str(ti.id),
                unreachable_timeout_s=self.unreachable_timeout_s,
            ),
            spec=spec,
            poll_interval_s=self.poll_interval_s,
            backoff=Backoff(self.unreachable_timeout_s),
            log=log_of(context, spec.workflow_id),
        )

    def _due_restart(self, context: Context, memory: Memory) -> str:
        """The task to restart the workflow from, if that is not done since the last clear."""
        asked = asked_for(context, "from_task") or self.from_task or ""
        return memory.due_restart(asked, max_tries=max_tries_of(context))

    def _check_restart(self, workflow_id: str, from_task: str, action: Action) -> None:
        if from_task and action is Action.ATTACH:
            raise RayWorkflowStillActiveError(
                workflow_id,
                f"should be restarted from its task {from_task!r}, and it is still running. "
                "Suspend it, or wait for its end; then try again",
            )

    def _announce(self, context: Context, workflow_id: str) -> None:
        """Say which workflow it is, before the task waits."""
        ti = context["ti"]
        ti.xcom_push(WORKFLOW_ID_KEY, workflow_id)
        ti.xcom_push(CONN_ID_KEY, self.ray_workflow_conn_id)
        url = RayWorkflowLink.url(self.ray_workflow_conn_id, workflow_id)
        self._leave_link(ti, RayWorkflowLink(), url)

    def _log_decision(
        self, workflow_id: str, status: WorkflowStatus, decision: TryDecision
    ) -> None:
        self.log.info(
            "Workflow %s is %s, so this try will %s: %s",
            *(workflow_id, status, decision.action.value, decision.reason),
        )

    def _carry_out(
        self,
        workflow_try: WorkflowTry,
        decision: TryDecision,
        before: StoredWorkflow | None,
        context: Context,
        memory: Memory,
        *,
        from_task: str,
        deadline: float | None,
    ) -> Any:
        """Do what was decided, wait, and return what the task returns.

        A restart is remembered, for the retries.

        :param before: what was decided about.
        :param from_task: the task that was due to be restarted from, ``""`` for none.
        """
        self._announce(context, workflow_try.workflow_id)
        start = partial(
            workflow_try.start, decision.action, before=before, from_task=decision.from_task
        )
        restarted = memory if from_task else None
        return self._see_through(workflow_try, start, context, deadline, restarted=restarted)

    def _see_through(
        self,
        workflow_try: WorkflowTry,
        start: Callable[[], StoredWorkflow],
        context: Context,
        deadline: float | None,
        restarted: Memory | None = None,
    ) -> Any:
        """Start, wait here or in the triggerer, and return what the task returns.

        :param start: begins the try or goes on with it, and returns what is stored.
        :param restarted: the memory that takes note of a restart from a task, once it has begun.
        """
        from airflow_provider_rayworkflow.tries.kill import stop_if_asked

        self._stop_if_asked = partial(stop_if_asked, workflow_try, context["ti"], self.kill_policy)
        suspend = False
        try:
            found = start()
            if restarted is not None:
                write_memory(context, restarted, restarted=True)
            if self.wait:
                at_most_s = _stay_s(deadline) if self.deferrable else math.inf
                found = workflow_try.wait(found, at_most_s=at_most_s)
                suspend = self.deferrable and found.status.is_active and _is_over(deadline)
        except AirflowTaskTimeout:
            suspend = True
            self.log.error(
                "%s is over. Workflow %s is suspended; the next try resumes it.",
                *(self._clock, workflow_try.workflow_id),
            )
            raise
        except RayWorkflowQueueFullError:
            if self.on_queue_full == "wait":
                self._reschedule(context, deadline)
            raise
        finally:
            self._stop_if_asked = None
            workflow_try.close(suspend=suspend)
        if not self.wait:
            return workflow_try.workflow_id
        if suspend:
            raise RayWorkflowTimeoutError(workflow_try.workflow_id, self._clock)
        if found.status.is_active:
            self._defer(workflow_try, context, deadline)
        workflow_try.report(found)
        return output_of(found, log=self.log, multiple_outputs=self.multiple_outputs)

    def _defer(self, workflow_try: WorkflowTry, context: Context, deadline: float | None) -> None:
        """Leave this process; :meth:`execute_complete` goes on in another one."""
        from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger

        self.log.info("Workflow %s has begun; waiting in the triggerer", workflow_try.workflow_id)
        late_s = 2 * self.poll_interval_s + deferral.latest_return_s()
        self.defer(
            trigger=RayWorkflowTrigger(
                workflow_id=workflow_try.workflow_id,
                statuses=[status.value for status in WorkflowStatus if not status.is_active],
                ray_workflow_conn_id=self.ray_workflow_conn_id,
                poll_interval_s=self.poll_interval_s,
                deadline=deadline,
                unreachable_timeout_s=self.unreachable_timeout_s,
                token=str(context["ti"].id),
                on_kill=self.kill_policy,
                carried={**workflow_try.carried, "deadline": deadline},
            ),
            method_name="execute_complete",
            # Only if there is no triggerer to see the deadline.
            timeout=deadline and timedelta(seconds=max(0.0, deadline - time.time()) + late_s),
        )

    def _reschedule(self, context: Context, deadline: float | None) -> None:
        """Leave the worker, and submit again as the same try."""
        if _is_over(deadline):
            return
        at = time.time() + _QUEUE_FULL_WAIT_S
        remember_begin(context, begun_at(context))
        self.log.warning("The cluster has no place for the workflow; it is submitted again later")
        raise AirflowRescheduleException(  # type: ignore[no-untyped-call] # Airflow's
            datetime.fromtimestamp(at, tz=UTC)
        )

    def _deadline(self, context: Context) -> float | None:
        """When the execution_timeout ends: Airflow keeps no time for deferred tasks."""
        timeout = self.execution_timeout
        return begun_at(context) + timeout.total_seconds() if timeout else None

    @property
    def _clock(self) -> str:
        return f"The execution_timeout of {self.execution_timeout}"


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.time() >= deadline


def _stay_s(deadline: float | None) -> float:
    """How long to wait in the worker before a deferral."""
    if deadline is None:
        return deferral.STAY_S
    return min(deferral.STAY_S, max(0.0, deadline - time.time()))


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Return if an argument is one of its choices.

    :raises ValueError: if not.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, not {value!r}.")
