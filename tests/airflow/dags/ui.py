"""DAGs whose workflows the UI's pages show; the tests store what such workflows leave."""

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

for dag_id, task_id in (("ui_flights", "daily"), ("ui_trips", "book"), ("ui_plain", "none")):
    with DAG(dag_id, schedule=None):
        RayWorkflowRunOperator(task_id=task_id, workflow="nowhere:nothing")
