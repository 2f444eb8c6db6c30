"""Why Airflow asks a running task to stop, and what becomes of its workflow then."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from airflow.sdk import TaskInstanceState

from airflow_provider_rayworkflow.connection.time_limits import in_thread, within
from airflow_provider_rayworkflow.tries.decision import OnKill
from airflow_provider_rayworkflow.tries.task_instance import state_of
from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class KillTimes:
    """In seconds. Airflow kills a task process 5 s after it has asked it to stop.

    :param ask_timeout_s: for Airflow to say why it asked.
    :param stop_timeout_s: for the workflow to be stopped.
    """

    ask_timeout_s: float = 1.5
    stop_timeout_s: float = 3.0


def stop_if_asked(
    workflow_try: WorkflowTry, ti: Any, policy: OnKill, *, times: KillTimes = KillTimes()
) -> None:
    """Stop a workflow if it was a person who ended its task instance.

    Airflow asks a task to stop also when its worker is shut down. Then the task instance is still
    running for Airflow, and the workflow goes on until the process ends.

    Called in a signal handler of the main thread, so nothing here may wait for a lock that the
    main thread may hold: all of it is done by other threads, within Airflow's time.
    """
    state = _try(
        lambda: state_of(ti),
        timeout_s=times.ask_timeout_s,
        problem="Airflow does not say why the task is asked to stop",
    )
    how = how_to_stop(state, policy)
    log.warning("Asked to stop, the task instance is %s: workflow %s", state, _SAY[how])
    if how != "leave":
        _try(
            lambda: workflow_try.stop(how),
            timeout_s=times.stop_timeout_s,
            problem="The workflow could not be stopped",
        )


def how_to_stop(state: str | None, policy: OnKill) -> OnKill:
    """What becomes of the workflow, by the task instance's state when it was asked to stop."""
    if state is None or state == TaskInstanceState.RUNNING:
        return "leave"
    if state == TaskInstanceState.RESTARTING:
        return "suspend"  # a person's clear: the next try decides
    return policy


def how_to_stop_deferred(state: str | None, policy: OnKill) -> OnKill:
    """The same for a task instance that was deferred, and that a person ended or cleared.

    Cleared, it may be in any state that leads to its next try, and even in that.
    """
    if policy == "cancel" and state not in _ENDED:
        return "suspend"  # the next try goes on with it
    return policy


_ENDED = frozenset(
    {
        TaskInstanceState.SUCCESS,
        TaskInstanceState.FAILED,
        TaskInstanceState.SKIPPED,
        TaskInstanceState.UPSTREAM_FAILED,
        TaskInstanceState.REMOVED,
    }
)
_SAY = {"leave": "is left alone", "suspend": "is being suspended", "cancel": "is being canceled"}


def _try(function: Callable[[], T], *, timeout_s: float, problem: str) -> T | None:
    """What a function returns; None if it fails, or takes longer.

    :param problem: logged if it fails, also when that is late.
    """
    answer = in_thread(function, name="ray-workflow-kill")
    try:
        return within(timeout_s, answer)
    except Exception as exc:  # the process is about to end; a later try finds what is stored
        if answer.done():
            log.error("%s", problem, exc_info=exc)
        else:
            answer.add_done_callback(partial(_log_late, problem))
        return None


def _log_late(problem: str, answer: Future[Any]) -> None:
    if (exc := answer.exception()) is not None:
        log.error("%s", problem, exc_info=exc)
