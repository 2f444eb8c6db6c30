"""One workflow, read for the page of a user who may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin.tasks import ShownTasks, TaskDetails
from airflow_provider_rayworkflow.plugin.web.access import Access, Method
from airflow_provider_rayworkflow.plugin.web.lanes import NoAnswerError
from airflow_provider_rayworkflow.plugin.web.storages import open_hook
from airflow_provider_rayworkflow.tries.identity import Origin
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.progress import progress_line
from airflow_provider_rayworkflow.workflow.model.records import (
    ORIGIN_KEY,
    Encoding,
    JsonOutput,
    Result,
    StatusRecord,
)
from airflow_provider_rayworkflow.workflow.offline.plan import PlannedTask
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

#: A larger output is not shown.
MAX_OUTPUT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownWorkflow:
    """A workflow that the user may see.

    :ivar origin: the task instance that started it, None if none did.
    """

    hook: RayWorkflowHook
    found: StoredWorkflow
    origin: Origin | None

    @property
    def workflow_id(self) -> str:
        return self.record.workflow_id

    @property
    def conn_id(self) -> str:
        return self.hook.ray_workflow_conn_id

    @property
    def record(self) -> StatusRecord:
        """With its honest status."""
        return self.found.honest_record

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return progress_line(self.record)

    @property
    def metadata(self) -> dict[str, Any]:
        """The author's."""
        metadata = self.record.user_metadata
        return {name: value for name, value in metadata.items() if name != ORIGIN_KEY}

    def tasks(self, *, value_of: str = "") -> ShownTasks:
        """Its tasks, read anew: :class:`ShownTasks`."""
        return ShownTasks(self.hook.store, self.found, value_of=value_of)

    def task_instance_path(self, base_path: str) -> str:
        """Where Airflow shows the task instance that started it, ``""`` if none did."""
        if self.origin is None:
            return ""
        key = self.origin.key
        path = f"{base_path}/dags/{_quoted(key.dag_id)}/runs/{_quoted(key.run_id)}"
        path += f"/tasks/{_quoted(key.task_id)}"
        return path if key.map_index < 0 else f"{path}/mapped/{key.map_index}"


def open_workflow(
    access: Access,
    conn_id: str,
    workflow_id: str,
    *,
    method: Method = "GET",
    hook: RayWorkflowHook | None = None,
) -> ShownWorkflow:
    """Read a workflow's status for a user who wants to see it or to act on it.

    :param hook: of the connection, where it is open already.
    :raises HTTPException: 404 if it does not exist or the user may not see it; 403 if the user may
        see it and no more; if it can't be read, 502 for those who may see the connection, and for
        others the same 404.
    :raises NoAnswerError: when it takes too long.
    """
    try:
        hook = hook or open_hook(conn_id)
        found = hook.find(workflow_id)
    except NoAnswerError:
        raise
    except Exception as exc:  # any error: an answer, and the details to the log only
        log.warning("Workflow %r of connection %r can't be shown: %s", workflow_id, conn_id, exc)
        access.fail(conn_id)
    origin = Origin.from_metadata(found.record.user_metadata) if found else None
    if found is None:
        access.refuse()
    access.check(method, conn_id, origin)
    return ShownWorkflow(hook=hook, found=found, origin=origin)


def describe_task(
    workflow: ShownWorkflow, details: TaskDetails, planned: PlannedTask | None
) -> dict[str, Any]:
    """One task for its panel, with its output where that is JSON and not too large.

    :param planned: what a resume would do with it.
    :raises StorageError: when that can't be read.
    """
    result = details.record.result if details.record else None
    has_output = result is not None and details.failure is None
    options = details.task.options.to_json()
    metadata = options.pop("metadata", {})
    return {
        "view": details.view,
        "failure": details.failure,
        "options": {**options, **details.task.shown_options},
        "metadata": metadata,
        "output": _output(workflow.hook.store, result) if has_output and result else None,
        "planned": planned,
        "cached": details.record.cached if details.record else None,
    }


def _output(store: WorkflowStore, result: Result) -> JsonOutput:
    """A task's value without unpickling."""
    if result.encoding is not Encoding.JSON:
        return JsonOutput(problem="It is not JSON, and pages unpickle nothing.")
    size = result.blob.size if result.blob else len(result.inline or b"")
    if size > MAX_OUTPUT_BYTES:
        return JsonOutput(problem=f"It has {size:,} bytes.")
    try:
        value = store.values.read_json(result)
    except (StorageError, ValueError, RecursionError) as exc:
        log.warning("The output of a task can't be shown: %s", exc)
        return JsonOutput(problem="It can't be read. The API server's log says why.")
    return JsonOutput(value=value)


def _quoted(text: str) -> str:
    return quote(text, safe="")
