"""Operators that run and manage durable Ray workflows, a module each."""

from airflow_provider_rayworkflow.operators.cancel import RayWorkflowCancelOperator
from airflow_provider_rayworkflow.operators.delete import RayWorkflowDeleteOperator
from airflow_provider_rayworkflow.operators.prune import RayWorkflowPruneOperator
from airflow_provider_rayworkflow.operators.resume_all import RayWorkflowResumeAllOperator
from airflow_provider_rayworkflow.operators.run import WORKFLOW_ID_KEY, RayWorkflowRunOperator

__all__ = [
    "WORKFLOW_ID_KEY",
    "RayWorkflowCancelOperator",
    "RayWorkflowDeleteOperator",
    "RayWorkflowPruneOperator",
    "RayWorkflowResumeAllOperator",
    "RayWorkflowRunOperator",
]
