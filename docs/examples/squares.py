import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def square(x):
    return x * x


@ray.remote
def total(*numbers):
    return sum(numbers)


graph = total.bind(*[square.bind(i) for i in range(10)])
print(workflow.run(graph, workflow_id="squares"))  # 285; again: 285, and nothing runs
print(workflow.get_status("squares"))  # SUCCESSFUL
