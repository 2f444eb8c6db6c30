"""The operator that runs a durable Ray workflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)

from airflow_provider_rayworkflow.definitions import (
    WorkflowDefinition,
    check_id,
    check_metadata,
    check_workflow,
)
from airflow_provider_rayworkflow.embedded import EmbeddedRay
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowCanceledError,
    RayWorkflowFailedError,
    RayWorkflowInputError,
    RayWorkflowInterruptedError,
    RayWorkflowQueueFullError,
    RayWorkflowStorageError,
    RayWorkflowTimeoutError,
)
from airflow_provider_rayworkflow.hooks import Found, RayWorkflowHook
from airflow_provider_rayworkflow.identity import METADATA_KEY, Origin, derive_workflow_id
from airflow_provider_rayworkflow.kills import OnKill, stop_if_asked
from airflow_provider_rayworkflow.patience import Patience
from airflow_provider_rayworkflow.remote import RemoteRay
from airflow_provider_rayworkflow.runs import Engine, WorkflowRun
from airflow_provider_rayworkflow.task_instances import (
    begun_at,
    key_of,
    origin_of,
    read_memory,
    remember_begin,
    write_memory,
)
from airflow_provider_rayworkflow.tries import OnClear, decide
from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger
from airflow_provider_rayworkflow.workflow.concurrency import check_limits
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

Json = dict[str, Any]

#: XCom key of the workflow's id, there before the task waits.
WORKFLOW_ID_KEY = "workflow_id"

# How much later than its own deadline a deferral is ended by Airflow's scheduler.
_TRIGGERER_MARGIN_S = 10.0
# How long to leave a cluster alone that has no place for the workflow.
_QUEUE_FULL_WAIT_S = 30.0


class RayWorkflowRunOperator(BaseOperator):
    """Run a durable Ray workflow, or go on with it where it stopped.

    A try that finds the workflow unfinished resumes it: tasks that have committed their result
    don't run again. A person's clear of a task instance that was successful starts it over.

    The workflow's output is the task's XCom where it is JSON of up to 64 KiB. Any other output
    stays in storage, the log says why, and the task is successful all the same.

    :param workflow: an import path ``"package.module:function"``, or a function. It gets the
        arguments as keywords and returns what ``.bind()`` of a Ray remote function returns. A
        function is called in the task process, an import path where Ray runs: there or on the
        cluster. A later try calls it again.
    :param arguments: JSON. (templated)
    :param workflow_id: by default one of the task instance alone, the same at every try. Whoever
        uses the same id shares the workflow. (templated)
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. With a host, the workflow
        runs on that cluster; without one, or if the default connection does not exist, Ray runs
        in the task process. (templated)
    :param metadata: JSON to keep with the workflow; the key ``airflow`` is taken. (templated)
    :param deferrable: wait in Airflow's triggerer instead of a worker's slot, once the workflow
        has begun. By default Airflow's ``[operators] default_deferrable``. Ray in the task process
        ends with it, so without a cluster the task waits there all the same.
    :param wait: wait for the workflow's end. If not, the task is successful as soon as the
        workflow has begun on the cluster, and its XCom is the ``workflow_id``.
    :param poll_interval_s: how often the storage is asked how the workflow stands. Deferred tasks
        of one connection share one look, as often as the shortest of their intervals says.
    :param on_clear: what a person's clear does. ``"auto"`` starts a successful workflow over and
        resumes any other; ``"resume"`` returns the stored output of a successful one;
        ``"restart"`` starts over whatever there is.
    :param on_kill: what becomes of the workflow when a person ends the running task (marks it
        failed or successful, fails its DAG run). ``"suspend"``: it can be resumed; ``"cancel"``:
        it is stopped for good; ``"leave"``: nothing, but Ray in the task process ends with it.
        A clear of a running one and the ``execution_timeout`` always suspend. While deferred,
        the same holds, except that with ``"leave"`` a clear leaves the workflow alone.
    :param runtime_env: Ray's runtime environment for the workflow's tasks on a cluster
        (``working_dir``, ``py_modules``, ``pip``, ``env_vars`` …); local folders are uploaded. Ray
        in the task process has none. (templated)
    :param max_running_workflows: how many workflows may run on the cluster at once, and
    :param max_pending_workflows: how many may wait for that. All users of the cluster have to say
        the same, or nothing; whoever says it first decides. Not for Ray in the task process.
    :param on_queue_full: what to do if so many run and wait already. ``"wait"``: leave the worker
        and submit again every 30 s, until the ``execution_timeout``; ``"fail"``: fail the try.
    :param unreachable_timeout_s: how long to bear with a cluster or storage that can't be
        reached, before the try fails. The workflow is not concerned.
    """

    template_fields: Sequence[str] = (
        "arguments",
        "workflow_id",
        "metadata",
        "ray_workflow_conn_id",
        "runtime_env",
    )
    template_fields_renderers = {  # noqa: RUF012 Airflow's
        "arguments": "json",
        "metadata": "json",
        "runtime_env": "json",
    }
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        workflow: str | Callable[..., Any],
        arguments: Json | None = None,
        workflow_id: str | None = None,
        ray_workflow_conn_id: str = RayWorkflowHook.default_conn_name,
        metadata: Json | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait: bool = True,
        poll_interval_s: float = 1.0,
        on_clear: OnClear = "auto",
        on_kill: OnKill = "suspend",
        runtime_env: Json | None = None,
        max_running_workflows: int | None = None,
        max_pending_workflows: int | None = None,
        on_queue_full: Literal["wait", "fail"] = "wait",
        unreachable_timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_workflow(workflow)
        _check_choice("on_clear", on_clear, get_args(OnClear))
        _check_choice("on_kill", on_kill, get_args(OnKill))
        _check_choice("on_queue_full", on_queue_full, ("wait", "fail"))
        check_limits(max_running_workflows, max_pending_workflows)
        if poll_interval_s <= 0:
            raise ValueError(f"poll_interval_s must be more than 0, not {poll_interval_s!r}.")
        self.workflow = workflow
        self.arguments = arguments
        self.workflow_id = workflow_id
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.metadata = metadata
        self.deferrable = deferrable
        self.wait = wait
        self.poll_interval_s = poll_interval_s
        self.on_clear = on_clear
        self.kill_policy = on_kill
        self.runtime_env = runtime_env
        self.max_running_workflows = max_running_workflows
        self.max_pending_workflows = max_pending_workflows
        self.on_queue_full = on_queue_full
        self.unreachable_timeout_s = unreachable_timeout_s
        self._running: tuple[WorkflowRun, Any] | None = None

    def execute(self, context: Context) -> Any:
        """Bring the workflow to its end and return its output.

        :raises RayWorkflowInputError: before anything is written or started.
        :raises RayWorkflowFailedError: when a workflow task failed.
        :raises RayWorkflowInterruptedError: when the workflow was stopped.
        :raises RayWorkflowTimeoutError: when the ``execution_timeout`` ends a deferred wait.
        :raises RayWorkflowQueueFullError: when the cluster has no place for it, see
            ``on_queue_full``.
        :raises RayWorkflowCanceledError: when it was canceled; Airflow does not retry.
        """
        deadline = self._deadline(begun_at(context))
        hook, definition = self._load()
        workflow_id = check_id(
            self.workflow_id
            or derive_workflow_id(key_of(context), namespace=hook.settings.namespace)
        )
        memory = read_memory(context)
        origin = origin_of(context, memory=memory, inputs=definition.fingerprint)
        found = hook.find(workflow_id)
        status = found.status if found else WorkflowStatus.NONE
        decision = decide(
            status=status,
            found=Origin.from_metadata(found.record.user_metadata) if found else None,
            mine=origin,
            memory=memory,
            retries=self.retries or 0,
            on_clear=self.on_clear,
        )
        action = decision.action
        self.log.info(
            "Workflow %s is %s, so this try will %s: %s",
            workflow_id,
            status,
            action.value,
            decision.reason,
        )
        run = self._make_run(hook, definition, workflow_id, origin, context)
        run.prepare(action)
        write_memory(context, memory, went_on=action.goes_on)
        context["ti"].xcom_push(WORKFLOW_ID_KEY, workflow_id)
        return self._see_through(run, lambda: run.start(action), context, deadline)

    def execute_complete(self, context: Context, event: Json) -> Any:
        """Take the end of the workflow, or wait again; called when the trigger has fired."""
        workflow_id, carried = event["workflow_id"], event["carried"]
        if event["reason"] == "unreachable":
            raise RayWorkflowStorageError(
                f"{event['error']} Given up after {self.unreachable_timeout_s:g} s. Workflow "
                f"{workflow_id!r} may go on, else it is RESUMABLE: the next try finds out."
            )
        hook, definition = self._load()
        memory = read_memory(context)
        origin = origin_of(context, memory=memory, inputs=definition.fingerprint)
        run = self._make_run(hook, definition, workflow_id, origin, context)
        return self._see_through(run, lambda: run.rejoin(carried), context, carried["deadline"])

    def resume_execution(self, next_method: str, next_kwargs: Json | None, context: Context) -> Any:
        """Airflow's entry after a deferral; here for the one that it ends by its own clock."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as exc:
            ti = context["ti"]
            workflow_id = ti.xcom_pull(task_ids=self.task_id, key=WORKFLOW_ID_KEY)
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
        if self._running is not None:
            run, ti = self._running
            stop_if_asked(run, ti, self.kill_policy)

    def _load(self) -> tuple[RayWorkflowHook, WorkflowDefinition]:
        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        is_remote = hook.settings.cluster is not None
        if not (self.wait or is_remote):
            raise RayWorkflowInputError(
                f"The task has wait=False, and its connection {self.ray_workflow_conn_id!r} has no "
                "host: Ray in the task process would end with it, and so would the workflow. Give "
                "the connection a cluster, or leave wait=False out."
            )
        return hook, WorkflowDefinition.load(self.workflow, self.arguments, is_remote=is_remote)

    def _make_run(
        self,
        hook: RayWorkflowHook,
        definition: WorkflowDefinition,
        workflow_id: str,
        origin: Origin,
        context: Context,
    ) -> WorkflowRun:
        metadata = check_metadata(self.metadata) | {METADATA_KEY: origin.to_metadata()}
        cluster = hook.settings.cluster
        engine: Engine
        if cluster is None:
            engine = EmbeddedRay(hook, definition, workflow_id=workflow_id, metadata=metadata)
        else:
            engine = RemoteRay(
                hook,
                cluster,
                definition,
                workflow_id=workflow_id,
                metadata=metadata,
                token=str(context["ti"].id),
                runtime_env=self.runtime_env,
                patience=Patience(self.unreachable_timeout_s),
                limits=(self.max_running_workflows, self.max_pending_workflows),
            )
        return WorkflowRun(
            hook=hook,
            engine=engine,
            workflow_id=workflow_id,
            poll_interval_s=self.poll_interval_s,
            patience=Patience(self.unreachable_timeout_s if cluster else 0.0),
        )

    def _see_through(
        self,
        run: WorkflowRun,
        begin: Callable[[], Found],
        context: Context,
        deadline: float | None,
    ) -> Any:
        """Wait here or in the triggerer, and return what the task returns."""
        stays = run.ends_with_process or not self.deferrable
        if stays and self.deferrable:
            self.log.info("Ray runs in the task process, so the task waits here: not deferred")
        self._running = (run, context["ti"])
        suspend = detach = False
        try:
            found = begin()
            if self.wait and stays:
                found = run.wait(found)
            elif self.wait:
                found = run.settle(found)
                suspend = found.status.is_active and _is_over(deadline)
            detach = found.status.is_active and not suspend
        except AirflowTaskTimeout:
            suspend = True
            self.log.error(
                "%s is over. Workflow %s is suspended; the next try resumes it.",
                self._clock,
                run.workflow_id,
            )
            raise
        except RayWorkflowQueueFullError:
            if self.on_queue_full == "wait":
                self._reschedule(context, deadline)
            raise
        finally:
            self._running = None
            run.close(suspend=suspend, detach=detach)
        if not self.wait:
            return run.workflow_id
        if suspend:
            raise RayWorkflowTimeoutError(run.workflow_id, self._clock)
        if detach:
            self._defer(run, context, deadline)
        return self._output_of(found)

    def _defer(self, run: WorkflowRun, context: Context, deadline: float | None) -> None:
        """Leave this process; :meth:`execute_complete` goes on in another one."""
        self.log.info("Workflow %s has begun; waiting in the triggerer", run.workflow_id)
        late_s = 2 * self.poll_interval_s + _TRIGGERER_MARGIN_S
        self.defer(
            trigger=RayWorkflowTrigger(
                workflow_id=run.workflow_id,
                statuses=[status.value for status in WorkflowStatus if not status.is_active],
                ray_workflow_conn_id=self.ray_workflow_conn_id,
                poll_interval_s=self.poll_interval_s,
                deadline=deadline,
                unreachable_timeout_s=self.unreachable_timeout_s,
                token=str(context["ti"].id),
                on_kill=self.kill_policy,
                carried={**run.carried, "deadline": deadline},
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

    def _deadline(self, begun_at: float) -> float | None:
        """When the execution_timeout ends: Airflow keeps no time for deferred tasks."""
        timeout = self.execution_timeout
        return begun_at + timeout.total_seconds() if timeout else None

    @property
    def _clock(self) -> str:
        return f"The execution_timeout of {self.execution_timeout}"

    def _output_of(self, ended: Found) -> Any:
        record = ended.record
        failure = record.failure
        if ended.status is WorkflowStatus.SUCCESSFUL:
            return self._json_output_of(record)
        if ended.status is WorkflowStatus.CANCELED:
            raise RayWorkflowCanceledError(record.workflow_id)
        if ended.status is WorkflowStatus.FAILED and failure is not None:
            self.log.error(
                "Workflow %s: task %s failed\n%s",
                record.workflow_id,
                failure.task_id,
                failure.traceback,
            )
            raise RayWorkflowFailedError(record.workflow_id, failure)
        if ended.has_lost_owner:
            reason = "the process that ran it is gone"
        elif failure is not None:
            reason = f"{failure.type}: {failure.message}"
        else:
            reason = "it was suspended"
        raise RayWorkflowInterruptedError(record.workflow_id, reason)

    def _json_output_of(self, record: StatusRecord) -> Any:
        output = record.output
        if output is None or output.problem:
            self.log.warning(
                "Workflow %s was successful, and its output is not in XCom: %s",
                record.workflow_id,
                output.problem if output else "it was not stored as JSON",
            )
            return None
        return output.value


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.time() >= deadline


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, not {value!r}.")
