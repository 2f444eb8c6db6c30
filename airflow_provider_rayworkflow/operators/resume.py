"""The operator that goes on with one workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_rayworkflow.exceptions import RayWorkflowNotFoundError
from airflow_provider_rayworkflow.operators.base import RayWorkflowBaseOperator, check_choice
from airflow_provider_rayworkflow.tries.decision import go_on
from airflow_provider_rayworkflow.tries.definition import check_id
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.task_instance import read_memory
from airflow_provider_rayworkflow.workflow.model.records import OnFailure

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook
    from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry


class RayWorkflowResumeOperator(RayWorkflowBaseOperator):
    """Go on with a workflow that exists from its stored graph, also if a program started it.

    A failed or interrupted one is resumed: tasks that have committed their result don't run
    again. One that runs is attached to, and of a successful one the stored output is returned.
    Its graph is that of its last run, with the functions of the DAG file and the archived folders that
    it was started with; a ``RayWorkflowRunOperator`` brings those of today. Modules that the local Ray's
    workers import from this machine's files are imported as they are now.

    XCom: the output, as of ``RayWorkflowRunOperator``.

    :param workflow_id: of the workflow. (templated)
    :param ray_workflow_conn_id: a connection of type ``ray_workflow``: the cluster need not be
        the one that the workflow ran on before. (templated)
    :param deferrable: wait in Airflow's triggerer. By default Airflow's ``[operators]
        default_deferrable``.
    :param wait: wait for the workflow's end. If not, the task is successful as soon as the
        workflow goes on, and its XCom is the ``workflow_id``.
    :param poll_interval_s: how often the storage is asked how the workflow stands.
    :param on_kill: what becomes of the workflow when a person ends the task: ``"suspend"``,
        ``"cancel"`` or ``"leave"``.
    :param from_task: the id of a workflow task that runs again, with all that depend on it, in the
        first try and after each clear; retries go on from there. The conf of the DAG run goes
        before it, as for ``RayWorkflowRunOperator``. (templated)
    :param on_failure: what becomes of the other workflow tasks when one has failed for good:
        ``"stop"`` or ``"finish"``, as for ``RayWorkflowRunOperator``; None: as in the run before.
    :param on_queue_full: if so many workflows run and wait already: ``"wait"`` or ``"fail"``.
    :param unreachable_timeout_s: how long to keep retrying a cluster or storage that can't be
        reached.
    """

    template_fields: Sequence[str] = ("workflow_id", "ray_workflow_conn_id", "from_task")

    def __init__(
        self, *, workflow_id: str, on_failure: OnFailure | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if on_failure is not None:
            check_choice("on_failure", on_failure, get_args(OnFailure))
        self.workflow_id = workflow_id
        self.on_failure = on_failure

    def execute(self, context: Context) -> Any:
        """Bring the workflow to its end and return its output.

        :raises RayWorkflowNotFoundError: when there is no such workflow.
        :raises RayWorkflowFailedError: when a workflow task failed.
        :raises RayWorkflowInterruptedError: when the workflow was stopped.
        :raises RayWorkflowTimeoutError: when the ``execution_timeout`` ends a deferred wait.
        :raises RayWorkflowCanceledError: when it was canceled; Airflow does not retry.
        :raises RayWorkflowStillActiveError: when it should be restarted from a task and is active.
        """
        deadline = self._deadline(context)
        hook, workflow_id = self._connect(), check_id(self.workflow_id)
        before = self._find(hook, workflow_id)
        if before is None:
            raise RayWorkflowNotFoundError(workflow_id, hook.shown_storage)
        memory = read_memory(context)
        from_task = self._due_restart(context, memory)
        decision = go_on(before.status, "it exists", from_task=from_task)
        self._log_decision(workflow_id, before.status, decision)
        self._check_restart(workflow_id, from_task, decision.action)
        workflow_try = self._try_of(hook, workflow_id, context)
        workflow_try.prepare(decision.action)
        return self._carry_out(
            workflow_try, decision, before, context, memory, from_task=from_task, deadline=deadline
        )

    def _try_again(self, context: Context, workflow_id: str) -> WorkflowTry:
        return self._try_of(self._connect(), workflow_id, context)

    def _try_of(self, hook: RayWorkflowHook, workflow_id: str, context: Context) -> WorkflowTry:
        return self._make_try(
            hook, RunSpec(workflow_id=workflow_id, on_failure=self.on_failure), context
        )
