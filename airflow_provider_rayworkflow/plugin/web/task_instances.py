"""Which workflow an Airflow task instance has, from what its operator left in Airflow."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_rayworkflow.links import RayWorkflowLink


def workflow_of(
    *, dag_id: str, run_id: str, task_id: str, map_index: int
) -> tuple[str, str] | None:
    """The connection's and the workflow's id, None if the task instance has no workflow.

    The operator leaves the address of the workflow's page as soon as it knows it.
    """
    query = XComModel.get_many(
        run_id=run_id,
        key=RayWorkflowLink().xcom_key,
        dag_ids=dag_id,
        task_ids=task_id,
        map_indexes=map_index,
        limit=1,
    )
    with create_session() as session:
        found = session.scalars(query).first()
        value = XComModel.deserialize_value(found) if found is not None else None
    if not isinstance(value, str):
        return None
    given = parse_qs(urlsplit(value).query)
    match given.get("conn_id"), given.get("workflow_id"):
        case [conn_id], [workflow_id]:
            return conn_id, workflow_id
    return None
