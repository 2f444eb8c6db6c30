"""New workflows on their way to the manager: those of several threads share a call.

A call costs both sides half a millisecond, whatever it carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.runtime.service import connect
from airflow_provider_rayworkflow.workflow.runtime.service.call_batches import CallBatches
from airflow_provider_rayworkflow.workflow.runtime.service.task_errors import as_task_error

Json = dict[str, Any]

_CALLS_AT_ONCE = 2
_MOST = 64  # workflows in a call


@dataclass(slots=True, eq=False)
class _NewWorkflow:
    workflow_id: str
    graph: bytes
    user_metadata: Json
    options: StartOptions
    error: Exception | None = None


def submit_new(workflow_id: str, graph: bytes, user_metadata: Json, options: StartOptions) -> None:
    """Have the manager run a workflow whose id was made for it; see :meth:`Manager.submit`.

    It waits for no other owner, and so keeps those that share its call for no longer than a write.
    """
    new = _NewWorkflow(workflow_id, graph, user_metadata, options)
    _groups.do(new)
    if new.error is not None:
        raise as_task_error(new.error)


def _submit(group: Sequence[_NewWorkflow]) -> None:
    calls = [(one.workflow_id, one.graph, one.user_metadata, one.options) for one in group]
    errors = connect.call(connect.manager().submit_new.remote(calls))
    for new, error in zip(group, errors, strict=True):
        new.error = error


_groups = CallBatches(_submit, at_once=_CALLS_AT_ONCE, most=_MOST)
