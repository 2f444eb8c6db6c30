"""The calls of Ray Workflows, on current Ray.

Ray is imported when a call needs it, so that this module costs nothing where a DAG file is parsed.
Every call starts Ray and the manager if they are not there yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow import context
from airflow_provider_rayworkflow.workflow.concurrency import check_limits
from airflow_provider_rayworkflow.workflow.ids import check_workflow_id, new_workflow_id
from airflow_provider_rayworkflow.workflow.manager import OnExisting
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

if TYPE_CHECKING:
    import ray
    from ray.dag import DAGNode

Json = dict[str, Any]


def init(
    *,
    max_running_workflows: int | None = None,
    max_pending_workflows: int | None = None,
    storage: str | None = None,
) -> None:
    """Start the manager of this Ray cluster, or check that it is as asked for.

    :param max_running_workflows: how many run at once; -1 = no limit. None keeps what was set.
    :param max_pending_workflows: how many may wait for a slot; 0 = none, -1 = no limit.
    :param storage: absolute path or URI. By default the environment variable
        ``RAY_WORKFLOW_STORAGE``, and without it ``/tmp/ray/workflow_data`` with a warning.
    :raises TypeError: for a limit that is not a whole number.
    :raises ValueError: for a limit that makes no sense, or if the manager runs with others.
    :raises DataSaveError: when the storage can't be written.
    """
    limits = check_limits(max_running_workflows, max_pending_workflows)
    from airflow_provider_rayworkflow.workflow.runtime import connect

    connect.manager(storage=storage, limits=limits)


def run(
    dag: DAGNode[Any],
    *args: Any,
    workflow_id: str | None = None,
    metadata: Json | None = None,
    on_existing: OnExisting = "resume",
    **kwargs: Any,
) -> Any:
    """Run a workflow and return its output. See :func:`run_async`.

    :raises WorkflowExecutionError: when a task failed; ``__cause__`` is its exception.
    :raises WorkflowCancellationError: when it was canceled meanwhile.
    """
    workflow_id = _submit(dag, args, kwargs, workflow_id, metadata, on_existing)
    return _wait(workflow_id)


def run_async(
    dag: DAGNode[Any],
    *args: Any,
    workflow_id: str | None = None,
    metadata: Json | None = None,
    on_existing: OnExisting = "resume",
    **kwargs: Any,
) -> ray.ObjectRef:
    """Start a workflow and return a reference to its output.

    When this returns, the workflow is stored, and goes on whatever becomes of the caller.

    :param dag: what ``.bind()`` of a remote function returns.
    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :param workflow_id: by default a new one. With an id that exists, a running workflow is
        attached to, one that failed or was interrupted is resumed with the graph given now, and
        of one that was successful the stored output is returned.
    :param metadata: JSON to keep with the workflow.
    :param on_existing: ``"resume"`` as above; ``"fail"``: raise if the id exists; ``"restart"``:
        drop what an earlier run has stored, and start anew.
    :raises TypeError: for anything but a graph of functions.
    :raises ValueError: for an id, metadata or option that can't be used.
    :raises queue.Full: when no slot and no place in the queue is free.
    :raises WorkflowAlreadyExistsError: with ``on_existing="fail"``.
    :raises WorkflowNotResumableError: when the workflow was canceled.
    """
    return _reference(_submit(dag, args, kwargs, workflow_id, metadata, on_existing))


def resume(workflow_id: str) -> Any:
    """Go on with a workflow where it stopped, and return its output. See :func:`resume_async`."""
    _resume(workflow_id)
    return _wait(workflow_id)


def resume_async(workflow_id: str) -> ray.ObjectRef:
    """Go on with a workflow where it stopped, from its stored graph, in the background.

    Tasks with a checkpoint don't run again. A running workflow is attached to; of a successful
    one the stored output is returned.

    :raises WorkflowNotResumableError: when it does not exist or was canceled.
    :raises queue.Full: when no slot and no place in the queue is free.
    """
    _resume(workflow_id)
    return _reference(workflow_id)


def get_output(workflow_id: str, *, task_id: str | None = None) -> Any:
    """The output of a workflow, or of one of its tasks; waits while it is running.

    :raises ValueError: when there is no such workflow or task.
    :raises FailedOutputError: when the workflow failed; also a ValueError.
    :raises CanceledOutputError: when it was canceled; also a ValueError.
    """
    check_workflow_id(workflow_id)
    return _wait(workflow_id, task_id, was_waiting=False)


def get_output_async(workflow_id: str, *, task_id: str | None = None) -> ray.ObjectRef:
    """A reference to what :func:`get_output` returns; errors are raised by ``ray.get``."""
    check_workflow_id(workflow_id)
    return _reference(workflow_id, task_id, was_waiting=False)


def get_status(workflow_id: str) -> WorkflowStatus:
    """The status of a workflow.

    :raises WorkflowNotFoundError: when there is no such workflow.
    """
    check_workflow_id(workflow_id)
    return WorkflowStatus(_call("get_status", workflow_id))


def get_metadata(workflow_id: str, task_id: str | None = None) -> Json:
    """What is known of a workflow, or of one of its tasks, without waiting.

    :returns: of a workflow ``status``, ``user_metadata`` and ``stats`` (``start_time`` and
        ``end_time`` in seconds since the epoch, where known); of a task ``task_id``,
        ``task_options``, ``user_metadata``, ``workflow_refs`` (ids of its inputs) and ``stats``.
    :raises ValueError: when there is no such workflow or task.
    """
    check_workflow_id(workflow_id)
    metadata: Json = _call("get_metadata", workflow_id, task_id)
    return metadata


def cancel(workflow_id: str) -> None:
    """Stop a workflow for good: its tasks are stopped, its checkpoints stay.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has been successful.
    """
    check_workflow_id(workflow_id)
    _call("cancel", workflow_id)


def suspend(workflow_id: str) -> None:
    """Stop a workflow now so that it can be resumed: its status becomes RESUMABLE.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has ended.
    """
    check_workflow_id(workflow_id)
    _call("suspend", workflow_id)


def delete(workflow_id: str) -> None:
    """Delete all that is stored of a workflow; its id is then as new.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises WorkflowStillActiveError: when it is running or pending.
    """
    check_workflow_id(workflow_id)
    _call("delete", workflow_id)


def continuation(dag_node: DAGNode[Any]) -> Any:
    """Inside a workflow task: return this to have the graph's output as the task's result.

    Outside a workflow, the graph runs as plain Ray tasks and its value is returned.

    :raises TypeError: for anything but a graph of functions.
    """
    from airflow_provider_rayworkflow.workflow.runtime import dag

    dag.check_dag(dag_node)
    return dag_node if context.in_task() else dag.execute_plainly(dag_node)


class options:  # noqa: N801 the name that Ray Workflows gave it
    """Options of a workflow task: ``task_id``, ``metadata``, ``catch_exceptions``, ``checkpoint``.

    Use it as a decorator above ``@ray.remote``, or unpack it into Ray's own options:
    ``f.options(**workflow.options(task_id="a"))``, ``@ray.remote(**workflow.options(...))``.

    :param task_id: the task's id; a number is put behind it if it is taken.
    :param metadata: JSON to keep with the task.
    :param catch_exceptions: the result becomes ``(value, None)`` or ``(None, exception)``.
    :param checkpoint: False: don't store the result; the task runs again on a resume if its
        result is still needed. By default as the task that created it, True at the top.
    :raises ValueError: for other options and for values that can't be used.
    """

    def __init__(self, **workflow_options: Any) -> None:
        valid = ("task_id", "metadata", "catch_exceptions", "checkpoint")
        unknown = sorted(set(workflow_options) - set(valid))
        if unknown:
            raise ValueError(
                f"Invalid option keywords {unknown} for workflow tasks. "
                f"Valid ones are {list(valid)}."
            )
        task_id = workflow_options.get("task_id")
        if task_id is not None and (not isinstance(task_id, str) or not task_id):
            raise ValueError(f"task_id must be a string that is not empty, not {task_id!r}.")
        for flag in ("catch_exceptions", "checkpoint"):
            if not isinstance(workflow_options.get(flag), (bool, type(None))):
                raise ValueError(f"{flag} must be True or False, not {workflow_options[flag]!r}.")
        _check_metadata(workflow_options.get("metadata"))
        self._options = workflow_options

    def keys(self) -> Iterator[str]:
        from airflow_provider_rayworkflow.workflow.runtime.options import carrier_key

        return iter([carrier_key(option) for option in self._options])

    def __getitem__(self, key: str) -> Any:
        from airflow_provider_rayworkflow.workflow.runtime.options import split

        return self._options[next(iter(split({key: None})[0]))]

    def __call__(self, function: Any) -> Any:
        from airflow_provider_rayworkflow.workflow.runtime.options import apply

        return apply(function, self._options)


def _submit(
    dag: Any,
    args: tuple[Any, ...],
    kwargs: Json,
    workflow_id: str | None,
    metadata: Json | None,
    on_existing: OnExisting,
) -> str:
    workflow_id = new_workflow_id() if workflow_id is None else check_workflow_id(workflow_id)
    user_metadata = _check_metadata(metadata)
    if on_existing not in ("resume", "fail", "restart"):
        raise ValueError(
            f"on_existing must be 'resume', 'fail' or 'restart', not {on_existing!r}."
        )
    from airflow_provider_rayworkflow.workflow.runtime import dag as dags

    dags.check_dag(dag)
    from airflow_provider_rayworkflow.workflow.runtime import connect

    manager = connect.manager()
    graph = dags.encode_dag(dag, args, kwargs).to_bytes()
    connect.call(manager.submit.remote(workflow_id, graph, user_metadata, on_existing))
    return workflow_id


def _resume(workflow_id: str) -> None:
    check_workflow_id(workflow_id)
    _call("resume", workflow_id)


def _call(method: str, *args: Any) -> Any:
    from airflow_provider_rayworkflow.workflow.runtime import connect

    return connect.call(getattr(connect.manager(), method).remote(*args))


def _wait(workflow_id: str, task_id: str | None = None, *, was_waiting: bool = True) -> Any:
    from airflow_provider_rayworkflow.workflow.runtime.outputs import value_of

    return value_of(_call("wait_output", workflow_id, task_id), was_waiting=was_waiting)


def _reference(
    workflow_id: str, task_id: str | None = None, *, was_waiting: bool = True
) -> ray.ObjectRef:
    from airflow_provider_rayworkflow.workflow.runtime import connect
    from airflow_provider_rayworkflow.workflow.runtime.outputs import fetch

    answer = connect.manager().wait_output.remote(workflow_id, task_id)
    return fetch.remote(answer, was_waiting)


def _check_metadata(metadata: Any) -> Json:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata must be a dict, not {metadata!r:.200}.")
    try:
        checked: Json = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as exc:
        raise ValueError(
            f"metadata must be JSON, and {metadata!r:.200} is not: {exc}."
        ) from exc
    return checked
