"""What Airflow knows of the running task instance. The only module that reads its context."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_provider_rayworkflow.tries.decision import MEMORY_KEY, Memory
from airflow_provider_rayworkflow.tries.identity import Origin, TaskInstanceKey
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

    from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog

log = get_logger(__name__)

_BEGUN_KEY = "ray_workflow_begun"
_LOG_KEY = "ray_workflow_log"


def key_of(context: Context) -> TaskInstanceKey:
    """The part of a task instance that stays the same over all tries."""
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return TaskInstanceKey(
        dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=map_index
    )


def read_memory(context: Context) -> Memory:
    """What earlier tries of the task instance left for this one."""
    stored = context["task_state_store"].get(MEMORY_KEY)
    return Memory.from_json(stored, try_number=context["ti"].try_number)


def write_memory(
    context: Context, memory: Memory, *, went_on: bool = False, restarted: bool = False
) -> Memory:
    """Leave the memory for later tries, until the DAG run is deleted; returns it.

    :param went_on: this try goes on with a workflow: the clear before it is dealt with.
    :param restarted: this try has restarted the workflow from a task: its retries need not.
    """
    if went_on:
        memory = replace(memory, went_on_at=max_tries_of(context))
    if restarted:
        memory = replace(memory, restarted_at=max_tries_of(context))
    context["task_state_store"].set(MEMORY_KEY, memory.to_json(), retention=NEVER_EXPIRE)
    return memory


def log_of(context: Context, workflow_id: str) -> WorkflowLog:
    """The workflow's log, which goes on where an earlier try has left it."""
    from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog

    store = context["task_state_store"]
    return WorkflowLog(
        workflow_id,
        remembered=store.get(_LOG_KEY),
        remember=lambda value: store.set(_LOG_KEY, value, retention=NEVER_EXPIRE),
    )


def asked_for(context: Context, name: str) -> str:
    """What the DAG run asks for in its conf; ``""`` for nothing.

    ``{"from_task": "clean"}`` is for all tasks of the run, ``{"from_task": {"flights": "clean"}}``
    for the Airflow task ``flights``.
    """
    asked = (context["dag_run"].conf or {}).get(name) or ""
    if isinstance(asked, dict):
        asked = asked.get(context["ti"].task_id) or ""
    return str(asked)


def begun_at(context: Context) -> float:
    """When this try began, in seconds since the epoch: it may have been rescheduled since."""
    match context["task_state_store"].get(_BEGUN_KEY):
        case {"ti": str(ti_id), "at": float(at)} if ti_id == str(context["ti"].id):
            return at
    return time.time()


def remember_begin(context: Context, at: float) -> None:
    """Keep when this try began for its next part, after a reschedule."""
    begun: JsonValue = {"ti": str(context["ti"].id), "at": at}
    context["task_state_store"].set(_BEGUN_KEY, begun, retention=NEVER_EXPIRE)


def origin_of(context: Context, *, memory: Memory, inputs: str) -> Origin:
    """What the metadata of a workflow says that this try starts."""
    return Origin(
        key=key_of(context),
        run_after=context["dag_run"].run_after.isoformat(),
        life=memory.life,
        max_tries=max_tries_of(context),
        inputs=inputs,
    )


def state_of(ti: Any) -> str | None:
    """The state that Airflow has for the task instance now; None if it does not say.

    Talks to Airflow's supervisor, and so may wait for a call that another thread makes.
    """
    return _ask_state(ti, ti.get_task_states)


def state_of_deferred(ti: Any) -> str | None:
    """The same in the triggerer, where less is known of the task instance. Call it in a thread."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return _ask_state(ti, RuntimeTaskInstance.get_task_states)


def _ask_state(ti: Any, ask: Callable[..., Any]) -> str | None:
    try:
        states = ask(
            dag_id=ti.dag_id,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            map_index=ti.map_index,
        )
    except Exception:  # the process is about to end: no answer is an answer too
        log.exception("Airflow did not say why the task was asked to stop")
        return None
    of_run = states.get(ti.run_id) or {}
    return next((str(state) for state in of_run.values() if state), None)


def max_tries_of(context: Context) -> int:
    """It rises with each clear, and with nothing else."""
    return int(context["ti"].max_tries)
