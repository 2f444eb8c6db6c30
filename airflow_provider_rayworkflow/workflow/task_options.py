"""``workflow.options``: the options of a workflow task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_rayworkflow.workflow.checks import check_metadata, check_on_change
from airflow_provider_rayworkflow.workflow.format.shortening import MAX_NAME_BYTES
from airflow_provider_rayworkflow.workflow.model.escalation import (
    check_causes,
    check_factors,
    check_limits,
)
from airflow_provider_rayworkflow.workflow.model.retry import Retry, seconds

#: How often a task is tried again, by cause; the defaults depend on Ray's ``max_retries``.
BUDGET_OPTIONS = ("max_preemptions", "max_oom_retries", "max_crashes")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "escalate": check_factors,
    "limit": check_limits,
    "escalate_on": check_causes,
}


class options:
    """Options of a workflow task.

    Use it as a decorator above ``@ray.remote``, or unpack it into Ray's own options:
    ``f.options(**workflow.options(task_id="a"))``, ``@ray.remote(**workflow.options(...))``.

    :param task_id: the task's id; a number is put behind it if it is taken.
    :param metadata: JSON to keep with the task.
    :param catch_exceptions: the result becomes ``(value, None)`` or ``(None, exception)``.
    :param checkpoint: False: don't store the result; the task runs again on a resume if its
        result is still needed. By default as the task that created it, True at the top.
    :param retry: a :class:`Retry`: how its exceptions are retried.
    :param timeout_s: an attempt that takes longer, in seconds (or a timedelta), is stopped and
        fails with a :class:`WorkflowTaskTimeoutError`.
    :param max_preemptions: how often it is tried again after its node died, was drained or
        preempted; by default without end (-1). These three are 0 for a task with Ray's
        ``max_retries=0``, unless they are given.
    :param max_oom_retries: how often after its worker was killed because memory ran short; 2.
    :param max_crashes: how often after its worker ended otherwise (a segmentation fault,
        ``os._exit``); as Ray's ``max_retries``, which is 3 by default.
    :param escalate: by which factor the next attempt asks for more than the last one, by resource:
        ``{"memory": 2.0, "num_cpus": 1.5}``, or a custom resource. The task must ask for each.
    :param limit: what it never asks more than: ``{"memory": "64GiB"}``; bytes, or a size.
    :param escalate_on: the causes after which it asks for more: ``("out_of_memory",)``; see the page
        on failures.
    :param version: stands for the task's code where that is compared: it has changed if the
        version has. A string or a whole number.
    :param on_change: what a resume does with the task if it has changed, whatever the call says.
    :param isolate: True: it shares no Ray task with others; see the page on performance.
    :param stop_grace_s: how long it may go on when it is to be stopped (a suspend, a cancel, another
        task that has failed), in seconds or as a timedelta: ``get_context().should_stop`` tells it. By
        default half a second if it asks for that, else nothing.
    :raises ValueError: for other options and for values that can't be used.
    """

    _VALID = (
        *("task_id", "metadata", "catch_exceptions", "checkpoint", "retry", "timeout_s"),
        *("isolate", "version", "on_change", "stop_grace_s"),
        *BUDGET_OPTIONS,
        *_CHECKS,
    )

    def __init__(self, **workflow_options: Any) -> None:
        unknown = sorted(set(workflow_options) - set(self._VALID))
        if unknown:
            raise ValueError(
                f"Invalid option keywords {unknown} for workflow tasks. "
                f"Valid ones are {list(self._VALID)}."
            )
        _check_task_id(workflow_options.get("task_id"))
        for flag in ("catch_exceptions", "checkpoint", "isolate"):
            if not isinstance(workflow_options.get(flag), (bool, type(None))):
                raise ValueError(f"{flag} must be True or False, not {workflow_options[flag]!r}.")
        retry, timeout = workflow_options.get("retry"), workflow_options.get("timeout_s")
        if not isinstance(retry, (Retry, type(None))):
            raise ValueError(f"retry must be a workflow.Retry, not {retry!r}.")
        if timeout is not None:
            workflow_options["timeout_s"] = seconds("timeout_s", timeout)
        for name in _DURATIONS:
            if (duration := workflow_options.get(name)) is not None:
                workflow_options[name] = seconds(name, duration)
        for budget in BUDGET_OPTIONS:
            _check_budget(budget, workflow_options.get(budget))
        for option, check in _CHECKS.items():
            if workflow_options.get(option) is not None:
                workflow_options[option] = check(workflow_options[option])
        if (version := workflow_options.get("version")) is not None:
            if not isinstance(version, (str, int)) or isinstance(version, bool):
                raise ValueError(f"version must be a string or a whole number, not {version!r}.")
            workflow_options["version"] = str(version)
        if (on_change := workflow_options.get("on_change")) is not None:
            check_on_change(on_change)
        check_metadata(workflow_options.get("metadata"))
        self._options = workflow_options

    def keys(self) -> Iterator[str]:
        return iter(self._carried())

    def __getitem__(self, key: str) -> Any:
        return self._carried()[key]

    def _carried(self) -> dict[str, Any]:
        from airflow_provider_rayworkflow.workflow.runtime.graphs.options import carry

        return carry(self._options)

    def __call__(self, function: Any) -> Any:
        from airflow_provider_rayworkflow.workflow.runtime.graphs.options import apply

        return apply(function, self._options)


_DURATIONS = ("stop_grace_s",)


def _check_budget(option: str, number: Any) -> None:
    if number is None:
        return
    if type(number) is not int or not -1 <= number < 2**31:
        raise ValueError(f"{option} must be a whole number, or -1 for no end, not {number!r:.100}.")


def _check_task_id(task_id: Any) -> None:
    if task_id is None:
        return
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"task_id must be a string that is not empty, not {task_id!r:.100}.")
    if len(task_id) > MAX_NAME_BYTES:
        raise ValueError(
            f"task_id {task_id!r:.80}… has {len(task_id)} characters, and may have {MAX_NAME_BYTES}."
        )
