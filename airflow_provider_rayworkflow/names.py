"""Names that a DAG file, the hook and Airflow's own tables have in common."""

#: The connection of operators that name none; it need not exist.
DEFAULT_CONN_ID = "ray_workflow_default"
