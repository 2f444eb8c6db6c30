"""One workflow for each item of a list that is known at run time only; each retries and resumes alone."""

from airflow.sdk import DAG, task

from airflow_provider_rayworkflow import workflow


@workflow.task
def load(region: str, day: str) -> str:
    return f"{region} on {day}"


@workflow.task
def summary(region: str, loaded: str) -> dict:
    return {"region": region, "characters": len(loaded)}


with DAG("ray_mapped", schedule=None):

    @task
    def regions() -> list[str]:
        return ["north", "south"]

    @task.ray_workflow(retries=2)
    def report(region: str, day: str):
        return summary(region, load(region, day))

    @task
    def regions_of(reports: list[dict]) -> list[str]:
        return [report["region"] for report in reports]

    regions_of(report.partial(day="{{ dag_run.run_after | ds }}").expand(region=regions()))
