"""Operators that run and manage durable Ray workflows, a module each."""

from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.operators.base import CONN_ID_KEY, WORKFLOW_ID_KEY
from airflow_provider_rayworkflow.workflow.lazy_names import names_of

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.operators.cancel import RayWorkflowCancelOperator
    from airflow_provider_rayworkflow.operators.delete import (
        RayWorkflowDeleteOperator,
        RayWorkflowPruneOperator,
    )
    from airflow_provider_rayworkflow.operators.resume import RayWorkflowResumeOperator
    from airflow_provider_rayworkflow.operators.resume_all import RayWorkflowResumeAllOperator
    from airflow_provider_rayworkflow.operators.run import RayWorkflowRunOperator
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            "cancel": ["RayWorkflowCancelOperator"],
            "delete": ["RayWorkflowDeleteOperator", "RayWorkflowPruneOperator"],
            "resume": ["RayWorkflowResumeOperator"],
            "resume_all": ["RayWorkflowResumeAllOperator"],
            "run": ["RayWorkflowRunOperator"],
        },
    )

__all__ = [
    "CONN_ID_KEY",
    "WORKFLOW_ID_KEY",
    "RayWorkflowCancelOperator",
    "RayWorkflowDeleteOperator",
    "RayWorkflowPruneOperator",
    "RayWorkflowResumeAllOperator",
    "RayWorkflowResumeOperator",
    "RayWorkflowRunOperator",
]
