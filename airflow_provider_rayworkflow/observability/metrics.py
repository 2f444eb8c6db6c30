"""What Airflow's metrics are told: what tries did with their workflows, and how those ended.

Names only, without tags, since StatsD has none: each has few values.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk.observability import stats

from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


def count_try(action: str) -> None:
    """Count a try, ``ray_workflow.try.<action>``; the actions are run, attach, resume, take, start_over."""
    stats.incr(f"ray_workflow.try.{action.replace(' ', '_')}")


def count_end(status: WorkflowStatus, record: StatusRecord) -> None:
    """Count a workflow that has ended under a try, ``ray_workflow.end.<status>``.

    And how long its latest run took, ``ray_workflow.duration.<status>``.
    """
    name = status.value.lower()
    stats.incr(f"ray_workflow.end.{name}")
    if record.started_at is not None and record.ended_at is not None:
        seconds = max(0.0, record.ended_at - record.started_at)
        stats.timing(f"ray_workflow.duration.{name}", timedelta(seconds=seconds))
