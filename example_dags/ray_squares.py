from airflow.sdk import DAG
from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator


@workflow.task
def square(x):
    return x * x


@workflow.task
def total(numbers):
    return sum(numbers)


def squares(n: int):
    return total([square(i) for i in range(n)])


with DAG("ray_squares", schedule=None):
    RayWorkflowRunOperator(task_id="squares", workflow=squares, arguments={"n": 10}, retries=2)
