"""The operator that runs a durable Ray workflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_rayworkflow.operators.base import RayWorkflowBaseOperator, check_choice
from airflow_provider_rayworkflow.tries.decision import Action, OnClear, decide
from airflow_provider_rayworkflow.tries.definition import (
    WorkflowDefinition,
    check_id,
    check_metadata,
    check_workflow,
)
from airflow_provider_rayworkflow.tries.identity import Origin, derive_workflow_id
from airflow_provider_rayworkflow.tries.item import fingerprint_of_item, item_of
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.task_instance import (
    key_of,
    origin_of,
    read_memory,
    write_memory,
)
from airflow_provider_rayworkflow.workflow.model.limits import check_limits
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY, OnChange, OnFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook
    from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry

Json = dict[str, Any]


class RayWorkflowRunOperator(RayWorkflowBaseOperator):
    """Run a durable Ray workflow, or go on with it where it stopped.

    A try that finds the workflow unfinished resumes it: tasks that have committed their result
    don't run again. A person's clear of a task instance that was successful starts it over.

    The workflow's output is the task's XCom where it is JSON of up to 64 KiB. Any other output
    stays in storage, the log says why, and the task is successful all the same.

    :param workflow: an import path ``"package.module:function"``, or a function. It gets the
        arguments as keywords and returns what a call of a ``@workflow.task`` gives (or ``.bind()``
        of a Ray remote function). With a cluster, an import path is called there; all else in the
        task process. A later try calls it again.
    :param arguments: JSON. (templated)
    :param workflow_id: by default one of the task instance alone, the same at every try. Tasks
        with the same id share the workflow. (templated)
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``. With a host, the workflow
        runs on that cluster; without one, or if the default connection does not exist, on the
        local Ray of the machine. (templated)
    :param metadata: JSON to keep with the workflow; the key ``airflow`` is taken. (templated)
    :param deferrable: wait in Airflow's triggerer instead of a worker's slot, once the workflow
        has begun. By default Airflow's ``[operators] default_deferrable``. Without a cluster, the
        triggerer must see the storage.
    :param wait: wait for the workflow's end. If not, the task is successful as soon as the
        workflow has begun, and its XCom is the ``workflow_id``.
    :param poll_interval_s: how often the storage is asked how the workflow stands. Deferred tasks
        of one connection share one look, as often as the shortest of their intervals says.
    :param on_clear: what a person's clear does. ``"auto"`` starts a successful workflow over and
        resumes any other; ``"resume"`` resumes a successful one, too: it runs what has changed, or
        else returns the stored output; ``"restart"`` starts over with any status.
    :param on_change: what a resume does with committed tasks that have changed since. ``"reuse"``:
        one whose arguments or inputs have changed runs again, one whose code has changed does not;
        ``"rerun_changed"``: both run again; ``"refuse"``: the try fails if anything has changed.
    :param on_failure: what becomes of the other workflow tasks when one has failed for good.
        ``"stop"``: they are stopped; ``"finish"``: whatever does not depend on it still runs before
        the try fails, and the log has a table of all failures.
    :param from_task: the id of a workflow task that runs again, with all that depend on it, in the
        first try and after each clear; retries go on from there. The conf of the DAG run goes
        before it: ``{"from_task": "clean"}``, or ``{"from_task": {"flights": "clean"}}`` for the
        Airflow task ``flights`` alone. (templated)
    :param dry_run: only say which workflow tasks would run, which are reused, and why: as a table
        in the log, as JSON in XCom. Nothing is run or written, and no Ray started. An import path
        is looked up where the Airflow task runs.
    :param on_kill: what becomes of the workflow when a person ends the running task (marks it
        failed or successful, fails its DAG run). ``"suspend"``: it can be resumed; ``"cancel"``:
        it is stopped for good; ``"leave"``: nothing.
        A clear of a running one and the ``execution_timeout`` always suspend. While deferred,
        the same holds, except that with ``"leave"`` a clear leaves the workflow alone.
    :param runtime_env: Ray's runtime environment for the workflow's tasks (``working_dir``,
        ``py_modules``, ``pip``, ``env_vars`` …); local folders are uploaded. (templated)
    :param max_running_workflows: how many workflows may run on the cluster at once, and
    :param max_pending_workflows: how many may wait for that. All users of the cluster have to say
        the same, or nothing; the first to say it decides.
    :param on_queue_full: what to do if so many run and wait already. ``"wait"``: leave the worker
        and submit again every 30 s, until the ``execution_timeout``; ``"fail"``: fail the try.
    :param unreachable_timeout_s: how long to keep retrying a cluster or storage that can't be
        reached, before the try fails. The workflow is not concerned.
    """

    template_fields: Sequence[str] = (
        "arguments",
        "workflow_id",
        "metadata",
        "ray_workflow_conn_id",
        "runtime_env",
        "from_task",
    )
    template_fields_renderers = {  # noqa: RUF012 Airflow's
        "arguments": "json",
        "metadata": "json",
        "runtime_env": "json",
    }

    def __init__(
        self,
        *,
        workflow: str | Callable[..., Any],
        arguments: Json | None = None,
        workflow_id: str | None = None,
        metadata: Json | None = None,
        runtime_env: Json | None = None,
        on_clear: OnClear = "auto",
        on_change: OnChange = "reuse",
        on_failure: OnFailure = "stop",
        dry_run: bool = False,
        max_running_workflows: int | None = None,
        max_pending_workflows: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_workflow(workflow)
        check_choice("on_clear", on_clear, get_args(OnClear))
        check_choice("on_change", on_change, get_args(OnChange))
        check_choice("on_failure", on_failure, get_args(OnFailure))
        check_limits(max_running_workflows, max_pending_workflows)
        self.workflow = workflow
        self.arguments = arguments
        self.workflow_id = workflow_id
        self.metadata = metadata
        self.runtime_env = runtime_env
        self.on_clear = on_clear
        self.on_change = on_change
        self.on_failure = on_failure
        self.only_plans = dry_run  # BaseOperator has a method dry_run
        self.max_running_workflows = max_running_workflows
        self.max_pending_workflows = max_pending_workflows
        self._given = {  # not rendered
            "workflow": workflow,
            "arguments": arguments,
            "workflow_id": workflow_id,
            "metadata": metadata,
            "runtime_env": runtime_env,
            "ray_workflow_conn_id": kwargs.get("ray_workflow_conn_id"),
        }

    def execute(self, context: Context) -> Any:
        """Bring the workflow to its end and return its output.

        :raises RayWorkflowInputError: before anything is written or started.
        :raises RayWorkflowFailedError: when a workflow task failed.
        :raises RayWorkflowInterruptedError: when the workflow was stopped.
        :raises RayWorkflowTimeoutError: when the ``execution_timeout`` ends a deferred wait.
        :raises RayWorkflowQueueFullError: when the cluster has no place for it, see
            ``on_queue_full``.
        :raises AirflowSkipException: when a workflow task raised one.
        :raises RayWorkflowOutputError: when the output can't be taken apart, see
            ``multiple_outputs``; Airflow does not retry.
        :raises RayWorkflowCanceledError: when it was canceled; Airflow does not retry.
        :raises RayWorkflowStillActiveError: when it should be restarted from a task and is active.
        """
        deadline = self._deadline(context)
        hook = self._connect()
        definition = self._define(context, hook)
        workflow_id = check_id(
            self.workflow_id
            or derive_workflow_id(key_of(context), namespace=hook.settings.namespace)
        )
        memory = read_memory(context)
        from_task = self._due_restart(context, memory)
        origin = origin_of(context, memory=memory, inputs=definition.fingerprint)
        before = self._find(hook, workflow_id)
        status = before.status if before else WorkflowStatus.NONE
        decision = decide(
            status=status,
            found=Origin.from_metadata(before.record.user_metadata) if before else None,
            mine=origin,
            memory=memory,
            retries=self.retries or 0,
            on_clear=self.on_clear,
            from_task=from_task,
        )
        action = decision.action
        self._log_decision(workflow_id, status, decision)
        if self.only_plans:
            return self._plan(hook, definition, workflow_id, action, from_task)
        self._check_restart(workflow_id, from_task, action)
        workflow_try = self._try_of(hook, definition, workflow_id, origin, context)
        workflow_try.prepare(action)
        memory = write_memory(context, memory, went_on=action.goes_on)
        return self._carry_out(
            workflow_try, decision, before, context, memory, from_task=from_task, deadline=deadline
        )

    def _plan(
        self,
        hook: RayWorkflowHook,
        definition: WorkflowDefinition,
        workflow_id: str,
        action: Action,
        from_task: str,
    ) -> Json:
        # What is taken or attached to is not compared.
        is_compared = action.submits
        plan = hook.plan(
            workflow_id,
            definition.encode() if is_compared else None,
            on_change=self.on_change,
            from_task=from_task,
            from_scratch=action in (Action.RUN, Action.START_OVER),
        )
        self.log.info("Nothing is run: dry_run. The plan is\n%s", plan)
        return plan.to_json()

    def _try_again(self, context: Context, workflow_id: str) -> WorkflowTry:
        hook = self._connect()
        definition = self._define(context, hook)
        origin = origin_of(context, memory=read_memory(context), inputs=definition.fingerprint)
        return self._try_of(hook, definition, workflow_id, origin, context)

    def _define(self, context: Context, hook: RayWorkflowHook) -> WorkflowDefinition:
        is_remote = hook.settings.cluster is not None and not self.only_plans
        definition = WorkflowDefinition.load(self.workflow, self.arguments, is_remote=is_remote)
        item = item_of(self, self._given, context)
        return definition if item is None else replace(definition, inputs=fingerprint_of_item(item))

    def _try_of(
        self,
        hook: RayWorkflowHook,
        definition: WorkflowDefinition,
        workflow_id: str,
        origin: Origin,
        context: Context,
    ) -> WorkflowTry:
        spec = RunSpec(
            workflow_id=workflow_id,
            definition=definition,
            metadata=check_metadata(self.metadata) | {ORIGIN_KEY: origin.to_metadata()},
            runtime_env=self.runtime_env,
            limits=check_limits(self.max_running_workflows, self.max_pending_workflows),
            on_change=self.on_change,
            on_failure=self.on_failure,
        )
        return self._make_try(hook, spec, context)
