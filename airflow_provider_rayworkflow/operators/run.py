"""The operator that runs a durable Ray workflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowTaskTimeout

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
    RayWorkflowInterruptedError,
)
from airflow_provider_rayworkflow.hooks import Found, RayWorkflowHook
from airflow_provider_rayworkflow.identity import METADATA_KEY, Origin, derive_workflow_id
from airflow_provider_rayworkflow.kills import OnKill, stop_if_asked
from airflow_provider_rayworkflow.patience import Patience
from airflow_provider_rayworkflow.remote import RemoteRay
from airflow_provider_rayworkflow.runs import Engine, WorkflowRun
from airflow_provider_rayworkflow.task_instances import (
    key_of,
    origin_of,
    read_memory,
    write_memory,
)
from airflow_provider_rayworkflow.tries import OnClear, decide
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

Json = dict[str, Any]

#: XCom key of the workflow's id, there before the task waits.
WORKFLOW_ID_KEY = "workflow_id"


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
    :param poll_interval_s: how often the storage is asked how the workflow stands.
    :param on_clear: what a person's clear does. ``"auto"`` starts a successful workflow over and
        resumes any other; ``"resume"`` returns the stored output of a successful one;
        ``"restart"`` starts over whatever there is.
    :param on_kill: what becomes of the workflow when a person ends the running task (marks it
        failed or successful, fails its DAG run). ``"suspend"``: it can be resumed; ``"cancel"``:
        it is stopped for good; ``"leave"``: nothing, but Ray in the task process ends with it.
        A clear while it runs and the ``execution_timeout`` always suspend.
    :param runtime_env: Ray's runtime environment for the workflow's tasks on a cluster
        (``working_dir``, ``py_modules``, ``pip``, ``env_vars`` …); local folders are uploaded. Ray
        in the task process has none. (templated)
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
        poll_interval_s: float = 1.0,
        on_clear: OnClear = "auto",
        on_kill: OnKill = "suspend",
        runtime_env: Json | None = None,
        unreachable_timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_workflow(workflow)
        _check_choice("on_clear", on_clear, get_args(OnClear))
        _check_choice("on_kill", on_kill, get_args(OnKill))
        if poll_interval_s <= 0:
            raise ValueError(f"poll_interval_s must be more than 0, not {poll_interval_s!r}.")
        self.workflow = workflow
        self.arguments = arguments
        self.workflow_id = workflow_id
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.metadata = metadata
        self.poll_interval_s = poll_interval_s
        self.on_clear = on_clear
        self.kill_policy = on_kill
        self.runtime_env = runtime_env
        self.unreachable_timeout_s = unreachable_timeout_s
        self._running: tuple[WorkflowRun, Any] | None = None

    def execute(self, context: Context) -> Any:
        """Bring the workflow to its end and return its output.

        :raises RayWorkflowInputError: before anything is written or started.
        :raises RayWorkflowFailedError: when a workflow task failed.
        :raises RayWorkflowInterruptedError: when the workflow was stopped.
        :raises RayWorkflowCanceledError: when it was canceled; Airflow does not retry.
        """
        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        settings = hook.settings
        definition = WorkflowDefinition.load(
            self.workflow, self.arguments, is_remote=settings.cluster is not None
        )
        metadata = check_metadata(self.metadata)
        workflow_id = check_id(
            self.workflow_id or derive_workflow_id(key_of(context), namespace=settings.namespace)
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
        run = WorkflowRun(
            hook=hook,
            engine=self._engine(
                hook,
                definition,
                workflow_id=workflow_id,
                metadata=metadata | {METADATA_KEY: origin.to_metadata()},
                token=str(context["ti"].id),
            ),
            workflow_id=workflow_id,
            poll_interval_s=self.poll_interval_s,
            patience=Patience(self.unreachable_timeout_s if settings.cluster else 0.0),
        )
        run.prepare(action)
        write_memory(context, memory, went_on=action.goes_on)
        context["ti"].xcom_push(WORKFLOW_ID_KEY, workflow_id)
        self._running = (run, context["ti"])
        timed_out = False
        try:
            ended = run.run(action)
        except AirflowTaskTimeout:
            timed_out = True
            self.log.error(
                "The execution_timeout of %s is over. Workflow %s is suspended; the next try "
                "resumes it.",
                self.execution_timeout,
                workflow_id,
            )
            raise
        finally:
            self._running = None
            run.close(suspend=timed_out)
        return self._output_of(ended)

    def on_kill(self) -> None:
        """Stop the workflow as ``on_kill`` says, if a person asked for it."""
        if self._running is not None:
            run, ti = self._running
            stop_if_asked(run, ti, self.kill_policy)

    def _engine(
        self,
        hook: RayWorkflowHook,
        definition: WorkflowDefinition,
        *,
        workflow_id: str,
        metadata: Json,
        token: str,
    ) -> Engine:
        cluster = hook.settings.cluster
        if cluster is None:
            return EmbeddedRay(hook, definition, workflow_id=workflow_id, metadata=metadata)
        return RemoteRay(
            hook,
            cluster,
            definition,
            workflow_id=workflow_id,
            metadata=metadata,
            token=token,
            runtime_env=self.runtime_env,
            patience=Patience(self.unreachable_timeout_s),
        )

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


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, not {value!r}.")
