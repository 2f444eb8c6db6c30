from airflow.sdk import DAG
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator


def squares(n: int):
    import ray

    @ray.remote
    def square(x):
        return x * x

    @ray.remote
    def total(*numbers):
        return sum(numbers)

    return total.bind(*[square.bind(i) for i in range(n)])


with DAG("ray_squares", schedule=None):
    RayWorkflowRunOperator(task_id="squares", workflow=squares, arguments={"n": 10}, retries=2)
