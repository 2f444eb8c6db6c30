from airflow_provider_rayworkflow import workflow


@workflow.task
def square(x: int) -> int:
    return x * x


@workflow.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


graph = total([square(i) for i in range(10)])
print(workflow.run(graph, workflow_id="squares"))  # 285; again: 285, and nothing runs
print(workflow.get_status("squares"))  # SUCCESSFUL
