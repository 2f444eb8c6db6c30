"""``python -m airflow_provider_rayworkflow.workflow.cli``."""

from airflow_provider_rayworkflow.workflow.cli import program

program()
