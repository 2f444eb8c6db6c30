"""One workflow for each item of a list that is known at run time only; each retries and resumes alone."""

from airflow.sdk import DAG, task

with DAG("ray_mapped", schedule=None):

    @task
    def regions() -> list[str]:
        return ["north", "south"]

    @task.ray_workflow(retries=2)
    def report(region: str, day: str):
        import ray

        @ray.remote
        def load():
            return f"{region} on {day}"

        @ray.remote
        def summary(loaded):
            return {"region": region, "characters": len(loaded)}

        return summary.bind(load.bind())

    @task
    def regions_of(reports: list[dict]) -> list[str]:
        return [report["region"] for report in reports]

    regions_of(report.partial(day="{{ dag_run.run_after | ds }}").expand(region=regions()))
