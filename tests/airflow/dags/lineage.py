"""Shows what a workflow's tasks find in their environment where OpenLineage is used."""

from airflow.sdk import DAG, task

from airflow_provider_rayworkflow.observability.lineage import parent_variables

with DAG("lineage", schedule=None):

    @task
    def show(ti=None):
        return parent_variables(ti)

    show()
