"""``workflow.options``: the options of a workflow task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_rayworkflow.workflow.authoring.option_checks import check_each
from airflow_provider_rayworkflow.workflow.checks import check_cleanup
from airflow_provider_rayworkflow.workflow.model.cache import check_cache


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
    :param when: when it runs. ``"all_success"``: once all tasks whose results it takes have given one;
        ``"all_done"``: once all have ended, also by a failure; ``"any_failed"``: then, if one of them
        has failed or could not run, and else it is skipped and its result is None. It gets the
        exception of a task that failed, and None for one that did not run.
    :param cleanup_s: with ``when="all_done"``: the task runs also after the workflow is canceled. All
        such tasks together get the longest of their times, in seconds (or a timedelta); then they
        are stopped. A second cancel stops them at once.
    :param isolate: True: it shares no Ray task with others; see the page on performance.
    :param stop_grace_s: how long it may go on when it is to be stopped (a suspend, a cancel, another
        task that has failed), in seconds or as a timedelta: ``get_context().should_stop`` tells it. By
        default half a second if it asks for that, else nothing.
    :param heartbeat_timeout_s: an attempt that has not saved, printed, logged or called
        ``get_context().heartbeat()`` for so long, in seconds or as a timedelta, is stopped and fails with a
        :class:`WorkflowTaskTimeoutError`.
    :param cache: a :class:`Cache`: its result is taken from other workflows, and kept for them.
    :param limits: a list of limits, or of their names, that the task shares with tasks of other workflows
        (:func:`limit`): how many attempts run at once, or begin in a time.
    :raises ValueError: for other options and for values that can't be used.
    """

    def __init__(self, **workflow_options: Any) -> None:
        options = check_each(workflow_options)
        check_cleanup(options)
        check_cache(options)
        self._options = options

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
