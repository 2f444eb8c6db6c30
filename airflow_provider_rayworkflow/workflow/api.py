"""The calls of Ray Workflows, on current Ray.

Ray is imported when a call needs it, so that this module costs nothing where a DAG file is parsed.
Every call starts Ray and the manager if they are not there yet.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.checks import (
    check_from_task,
    check_metadata,
    check_on_change,
    check_on_failure,
    start_options,
)
from airflow_provider_rayworkflow.workflow.event_listener import EventListener
from airflow_provider_rayworkflow.workflow.execution import context
from airflow_provider_rayworkflow.workflow.execution.trace_context import current_traceparent
from airflow_provider_rayworkflow.workflow.lists import iter_all as iter_all
from airflow_provider_rayworkflow.workflow.lists import list_all as list_all
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id
from airflow_provider_rayworkflow.workflow.model.limits import check_limits
from airflow_provider_rayworkflow.workflow.model.records import (
    OnChange,
    OnExisting,
    OnFailure,
    StartOptions,
)
from airflow_provider_rayworkflow.workflow.model.retention import check_retention
from airflow_provider_rayworkflow.workflow.model.retry import seconds
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.plan import Plan, make_plan
from airflow_provider_rayworkflow.workflow.offline.prune import PRUNED_BY_DEFAULT, check_statuses
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

if TYPE_CHECKING:
    import ray
    from pyarrow.fs import FileSystem
    from ray.dag import DAGNode

    from airflow_provider_rayworkflow.workflow.authoring.node import Node

    AnyNode = Node[Any] | DAGNode

Json = dict[str, Any]


def init(
    *,
    max_running_workflows: int | None = None,
    max_pending_workflows: int | None = None,
    storage: str | FileSystem | None = None,
    sharing: bool | None = None,
    retention: Mapping[str, float] | None = None,
) -> None:
    """Start the manager of this Ray cluster, or check that it is as asked for.

    :param max_running_workflows: how many run at once; -1 = no limit. None keeps what was set.
    :param max_pending_workflows: how many may wait for a slot; 0 = none, -1 = no limit.
    :param storage: absolute path, URI (``s3://bucket/prefix?region=…`` and whatever else
        ``pyarrow.fs`` opens) or ``pyarrow.fs.FileSystem``. By default the environment variable
        ``RAY_WORKFLOW_STORAGE``, and without it ``/tmp/ray/workflow_data`` with a warning.
    :param sharing: False: every workflow task gets a Ray task of its own. By default short ones
        share, unless the environment variable ``RAY_WORKFLOW_SHARING`` is ``0``.
    :param retention: for how many days ended workflows are kept, by status, as ``{"SUCCESSFUL": 30,
        "FAILED": 90}``: the manager deletes older ones by itself, up to 500 an hour. None keeps what
        was set, ``{}`` turns it off. By default nothing is deleted.
    :raises TypeError: for a limit that is not a whole number, ``sharing`` that is not a bool, and days
        that are no number.
    :raises ValueError: for a retention of other statuses or of no time; for a limit that makes no sense, or if the manager runs with others, or
        with the other ``sharing``.
    :raises DataSaveError: when the storage can't be written.
    """
    limits = check_limits(max_running_workflows, max_pending_workflows)
    if not isinstance(sharing, (bool, type(None))):
        raise TypeError(f"'sharing' must be True, False or None, not {sharing!r}.")
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    kept = None if retention is None else check_retention(retention)
    connect.manager(storage=storage, limits=limits, sharing=sharing, retention=kept)


def run(
    dag: AnyNode,
    *args: Any,
    workflow_id: str | None = None,
    metadata: Json | None = None,
    on_existing: OnExisting = "resume",
    on_change: OnChange = "reuse",
    on_failure: OnFailure = "stop",
    from_task: str | None = None,
    **kwargs: Any,
) -> Any:
    """Run a workflow and return its output. See :func:`run_async`.

    :raises WorkflowExecutionError: when a task failed; ``__cause__`` is its exception.
    :raises WorkflowCancellationError: when it was canceled meanwhile.
    """
    options = start_options(on_existing, on_change, on_failure, from_task)
    options = replace(options, is_awaited=_is_awaited())
    return _wait(_submit(dag, args, kwargs, workflow_id, metadata, options))


def run_async(
    dag: AnyNode,
    *args: Any,
    workflow_id: str | None = None,
    metadata: Json | None = None,
    on_existing: OnExisting = "resume",
    on_change: OnChange = "reuse",
    on_failure: OnFailure = "stop",
    from_task: str | None = None,
    **kwargs: Any,
) -> ray.ObjectRef[Any]:
    """Start a workflow and return a reference to its output.

    When this returns, the workflow is stored, and goes on whatever becomes of the caller.

    :param dag: what a call of a ``@workflow.task`` gives, or ``.bind()`` of a Ray remote function.
    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :param workflow_id: by default a new one. With an id that exists, a running workflow is
        attached to, one that failed or was interrupted is resumed with the graph given now, and
        of one that was successful the stored output is returned, unless tasks of the graph given
        now have to run.
    :param metadata: JSON to keep with the workflow.
    :param on_existing: ``"resume"`` as above; ``"fail"``: raise if the id exists; ``"restart"``:
        drop what an earlier run has stored, and start anew.
    :param on_change: what a resume does with committed tasks that have changed. ``"reuse"``: one
        whose arguments or inputs have changed runs again, one whose code has changed does not;
        ``"rerun_changed"``: both run again; ``"refuse"``: raise if anything has changed.
    :param on_failure: what becomes of the other tasks when one has failed for good. ``"stop"``: they
        are stopped; ``"finish"``: whatever does not depend on it still runs before the workflow is
        FAILED, with all failures. A running workflow that is attached to goes on as it was started.
    :param from_task: the id of a task that runs again, with all that depend on it.
    :raises TypeError: for anything but a graph of functions.
    :raises ValueError: for an id, metadata or option that can't be used.
    :raises queue.Full: when no slot and no place in the queue is free.
    :raises WorkflowAlreadyExistsError: with ``on_existing="fail"``.
    :raises WorkflowNotResumableError: when the workflow was canceled.
    :raises WorkflowChangedError: when tasks have changed that refuse that; nothing is written.
    :raises WorkflowStillActiveError: with ``from_task``, when it is running or pending.
    """
    options = start_options(on_existing, on_change, on_failure, from_task)
    return _reference(_submit(dag, args, kwargs, workflow_id, metadata, options))


def resume(
    workflow_id: str, *, from_task: str | None = None, on_failure: OnFailure | None = None
) -> Any:
    """Go on with a workflow where it stopped, and return its output. See :func:`resume_async`."""
    _resume(workflow_id, from_task, on_failure, is_awaited=_is_awaited())
    return _wait(workflow_id)


def resume_async(
    workflow_id: str, *, from_task: str | None = None, on_failure: OnFailure | None = None
) -> ray.ObjectRef[Any]:
    """Go on with a workflow where it stopped, from its stored graph, in the background.

    Tasks with a checkpoint don't run again. A running workflow is attached to; of a successful
    one the stored output is returned.

    :param from_task: the id of a task that runs again, with all that depend on it; also of a
        successful workflow. Their checkpoints don't count any more from now on.
    :param on_failure: as for :func:`run_async`; None: as in the run before.
    :raises ValueError: when the workflow has no such task.
    :raises WorkflowStillActiveError: with ``from_task``, when it is running or pending.
    :raises WorkflowNotResumableError: when it does not exist or was canceled.
    :raises queue.Full: when no slot and no place in the queue is free.
    """
    _resume(workflow_id, from_task, on_failure)
    return _reference(workflow_id)


def plan(
    dag: AnyNode | None,
    workflow_id: str,
    *args: Any,
    on_change: OnChange | None = None,
    from_task: str | None = None,
    storage: Any = None,
    **kwargs: Any,
) -> Plan:
    """What :func:`run` or :func:`resume` would do now, and why. Nothing is run, and no Ray started.

    ``print`` shows it as a table, ``to_json()`` gives it as JSON.

    :param dag: the graph to run, or None for the stored one, as ``resume`` takes it.
    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :param on_change: as for ``run``; by default ``"reuse"``, and for the stored graph what the
        workflow was last run with.
    :param from_task: as for ``run`` and ``resume``.
    :param storage: as for :func:`init`; by default that of this process's workflows.
    :raises TypeError: for anything but a graph of functions.
    :raises ValueError: for an option that can't be used, and when there is no task ``from_task``.
    :raises WorkflowNotFoundError: when nothing is stored, and no graph is given.
    """
    check_workflow_id(workflow_id)
    if on_change is not None:
        check_on_change(on_change)
    from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    graph = None if dag is None else encode_graph(dag, args, kwargs)
    store = connect.known_store(storage)
    return make_plan(
        store,
        workflow_id,
        StatusReader(store).read(workflow_id),
        graph,
        on_change=on_change or (None if dag is None else "reuse"),
        from_task=check_from_task(from_task),
    )


def fork(workflow_id: str, new_workflow_id: str, *, from_task: str | None = None) -> None:
    """Make a new workflow that has the graph and the finished checkpoints of another one.

    It is RESUMABLE: :func:`resume` it, or :func:`run` another graph under its id. Neither workflow
    knows of the other afterwards; either may be deleted. Large values are not copied where the
    storage can avoid that.

    :param workflow_id: of any status; what a running one has committed so far.
    :param from_task: leave out the checkpoints of this task and of all that depend on it.
    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises WorkflowAlreadyExistsError: when there is a workflow of the new id.
    :raises ValueError: when the workflow has no task ``from_task``.
    """
    check_workflow_id(workflow_id)
    check_workflow_id(new_workflow_id)
    _ask("inactive.fork", workflow_id, new_workflow_id, from_task=check_from_task(from_task))


def resume_all(include_failed: bool = False) -> list[tuple[str, ray.ObjectRef[Any]]]:
    """Resume all workflows that were interrupted, those that were running first.

    :param include_failed: also those that an error of their own ended.
    :returns: an id and a reference to the output for each; where a workflow could not be
        resumed, ``ray.get`` of its reference raises why, and the others are not concerned.
    """
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    return [
        (
            workflow_id,
            _reference(workflow_id) if error is None else connect.manager().fail.remote(error),
        )
        for workflow_id, error in resume_each(include_failed)
    ]


def resume_each(include_failed: bool = False) -> list[tuple[str, Exception | None]]:
    """As :func:`resume_all`, for callers that don't wait: each id with what kept it from resuming."""
    from airflow_provider_rayworkflow.workflow.runtime.service import task_logs

    resumed: list[tuple[str, Exception | None]] = _ask("resume_all", include_failed=include_failed)
    for workflow_id, _ in resumed:
        task_logs.print_logs_of(workflow_id)
    return resumed


def get_output(workflow_id: str, *, task_id: str | None = None) -> Any:
    """The output of a workflow, or of one of its tasks; waits while it is running.

    :raises ValueError: when there is no such workflow or task.
    :raises FailedOutputError: when the workflow failed; also a ValueError.
    :raises CanceledOutputError: when it was canceled; also a ValueError.
    :raises SuspendedOutputError: when it was interrupted and can be resumed; also a ValueError.
    """
    check_workflow_id(workflow_id)
    return _wait(workflow_id, task_id, was_waiting=False)


def get_output_async(workflow_id: str, *, task_id: str | None = None) -> ray.ObjectRef[Any]:
    """A reference to what :func:`get_output` returns; errors are raised by ``ray.get``."""
    check_workflow_id(workflow_id)
    return _reference(workflow_id, task_id, was_waiting=False)


def get_status(workflow_id: str) -> WorkflowStatus:
    """The status of a workflow.

    :raises WorkflowNotFoundError: when there is no such workflow.
    """
    check_workflow_id(workflow_id)
    return WorkflowStatus(_ask("queries.get_status", workflow_id))


def get_metadata(workflow_id: str, task_id: str | None = None) -> Json:
    """What is known of a workflow, or of one of its tasks, without waiting.

    :returns: of a workflow ``status``, ``user_metadata`` and ``stats`` (``start_time`` and
        ``end_time`` in seconds since the epoch, where known); of a task ``task_id``,
        ``task_options``, ``user_metadata``, ``workflow_refs`` (ids of its inputs) and ``stats``.
    :raises ValueError: when there is no such workflow or task.
    """
    check_workflow_id(workflow_id)
    metadata: Json = _ask("queries.get_metadata", workflow_id, task_id)
    return metadata


def cancel(workflow_id: str) -> None:
    """Stop a workflow for good: its tasks are stopped, its checkpoints stay.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has been successful.
    """
    check_workflow_id(workflow_id)
    _ask("cancel", workflow_id)


def suspend(workflow_id: str) -> None:
    """Stop a workflow now so that it can be resumed: its status becomes RESUMABLE.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has ended.
    """
    check_workflow_id(workflow_id)
    _ask("suspend", workflow_id)


def delete(workflow_id: str) -> None:
    """Delete all that is stored of a workflow; its id is then as new.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises WorkflowStillActiveError: when it is running or pending.
    """
    check_workflow_id(workflow_id)
    _ask("inactive.delete", workflow_id)


def prune(
    older_than: float | timedelta,
    *,
    statuses: Collection[str] = PRUNED_BY_DEFAULT,
    keep_outputs: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Delete workflows that ended long ago.

    :param older_than: since they ended (or began, if they have no end): seconds or a timedelta.
    :param statuses: which ones; RESUMABLE ones only if asked for, active ones never.
    :param keep_outputs: keep status, graph and output of successful ones, and delete their other
        checkpoints.
    :param dry_run: only say which ones.
    :returns: their ids.
    :raises ValueError: for a negative duration, and for other statuses.
    """
    older_than_s = seconds("older_than", older_than)
    wanted = check_statuses(statuses)
    how = {"statuses": wanted, "keep_outputs": keep_outputs, "dry_run": dry_run}
    ids: list[str] = _ask("inactive.prune", older_than_s=older_than_s, **how)
    return ids


def continuation(dag_node: AnyNode) -> Any:
    """Inside a workflow task: return this to have the graph's output as the task's result.

    Outside a workflow, the graph runs as plain Ray tasks and its value is returned.

    :raises TypeError: for anything but a graph of functions.
    """
    from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import check_graph
    from airflow_provider_rayworkflow.workflow.runtime.graphs.plain_run import execute_plainly

    check_graph(dag_node)
    return dag_node if context.in_task() else execute_plainly(dag_node)


def wait_for_event(
    event_listener_type: type[EventListener], *args: Any, **kwargs: Any
) -> Node[Any]:
    """A graph whose value is an event. Waiting for it holds no worker and no CPU.

    :param event_listener_type: a subclass of :class:`EventListener`.
    :param args: and ``kwargs``: for its ``poll_for_event``.
    :raises TypeError: for anything but a subclass.
    """
    if not isinstance(event_listener_type, type) or not issubclass(
        event_listener_type, EventListener
    ):
        raise TypeError(
            f"Event listener type is {event_listener_type!r}, which is not a subclass of "
            "workflow.EventListener."
        )
    from airflow_provider_rayworkflow.workflow.runtime.worker.events import event_node

    return event_node(event_listener_type, args, kwargs)


def sleep(duration: float | timedelta) -> Node[None]:
    """A graph that ends after a time, counted from when it begins to run; its value is None.

    A resumed sleep waits only for the rest.

    :param duration: seconds or a timedelta.
    :raises ValueError: when it is negative.
    """
    duration_s = seconds("duration", duration)
    from airflow_provider_rayworkflow.workflow.runtime.worker.events import sleep_node

    return sleep_node(duration_s)


def new_workflow_id() -> str:
    """Make an id that no other workflow has: ``<uuid4>.<seconds since the epoch>``."""
    return f"{uuid.uuid4()}.{time.time():.9f}"


def _submit(
    dag: Any,
    args: tuple[Any, ...],
    kwargs: Json,
    workflow_id: str | None,
    metadata: Json | None,
    options: StartOptions,
) -> str:
    if workflow_id is None:
        workflow_id, options = new_workflow_id(), replace(options, is_new=True)
    check_workflow_id(workflow_id)
    options = replace(options, traceparent=current_traceparent())
    user_metadata = check_metadata(metadata)
    from airflow_provider_rayworkflow.workflow.runtime.graphs import encoding, nodes

    nodes.check_graph(dag)
    from airflow_provider_rayworkflow.workflow.runtime.service import (
        connect,
        submissions,
        task_logs,
    )

    manager = connect.manager()
    graph = encoding.encode_graph(dag, args, kwargs).to_bytes()
    task_logs.print_logs_of(workflow_id)
    if options.is_new:
        submissions.submit_new(workflow_id, graph, user_metadata, options)
    else:
        connect.call(manager.submit.remote(workflow_id, graph, user_metadata, options))
    return workflow_id


def _resume(workflow_id: str, from_task: Any, on_failure: Any, *, is_awaited: bool = False) -> None:
    check_workflow_id(workflow_id)
    if on_failure is not None:
        check_on_failure(on_failure)
    since = check_from_task(from_task)
    from airflow_provider_rayworkflow.workflow.runtime.service import connect, task_logs

    connect.manager()
    task_logs.print_logs_of(workflow_id)
    options = {"from_task": since, "on_failure": on_failure, "traceparent": current_traceparent()}
    _ask("resume", workflow_id, **options, is_awaited=is_awaited)


def _ask(method: str, *args: Any, **kwargs: Any) -> Any:
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    return connect.ask(method, *args, **kwargs)


def _wait(workflow_id: str, task_id: str | None = None, *, was_waiting: bool = True) -> Any:
    _check_can_end(workflow_id, task_id)
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    return connect.call(_reference(workflow_id, task_id, was_waiting=was_waiting))


def _is_awaited() -> bool:
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    return connect.asker() is not None


def _check_can_end(workflow_id: str, task_id: str | None) -> None:
    if not context.in_task():
        return
    own = context.get_context()
    if own.workflow_id == workflow_id and task_id in (None, own.task_id):
        raise ValueError(
            f"Task {own.task_id!r} of workflow {workflow_id!r} would wait for its own end. Give the "
            "workflow that it waits for another id, or return workflow.continuation(…)."
        )


def _reference(
    workflow_id: str, task_id: str | None = None, *, was_waiting: bool = True
) -> ray.ObjectRef[Any]:
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    reference: ray.ObjectRef[Any] = connect.manager().wait_output.remote(
        workflow_id, task_id, was_waiting, connect.asker()
    )
    return reference
