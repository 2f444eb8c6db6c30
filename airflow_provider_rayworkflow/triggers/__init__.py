"""What waits for Ray workflows in Airflow's triggerer."""

from airflow_provider_rayworkflow.triggers.events import RayWorkflowEventTrigger
from airflow_provider_rayworkflow.triggers.workflow import RayWorkflowTrigger

__all__ = ["RayWorkflowEventTrigger", "RayWorkflowTrigger"]
