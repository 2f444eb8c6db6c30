"""``python -m airflow_provider_rayworkflow.workflow.cli``."""

from airflow_provider_rayworkflow.workflow.cli import program

if __name__ == "__main__":
    program()
