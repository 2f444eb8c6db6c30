"""Workflows on a remote cluster."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator, RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
SHIPPED = os.environ.get("SHIPPED", "")


def doubled(x):
    return 2 * x


def noted(folder, name):
    Path(folder).mkdir(exist_ok=True)
    with open(Path(folder, "ran"), "a") as file:
        file.write(f"{name}\n")


def double(x: int):
    """A function of the DAG file that uses others of the file."""
    import ray

    @ray.remote
    def twice():
        return {"doubled": doubled(x)}

    return twice.bind()


with DAG("on_cluster", schedule=None, default_args={"retry_delay": timedelta(0)}):
    by_path = RayWorkflowRunOperator(
        task_id="by_path",
        workflow="pipeline:daily",
        arguments={"folder": WITNESS, "secret": "{{ 'swordfish' }}"},
        runtime_env={"working_dir": SHIPPED, "env_vars": {"FLAVOUR": "{{ dag.dag_id }}"}},
        retries=1,
    )
    by_function = RayWorkflowRunOperator(
        task_id="by_function", workflow=double, arguments={"x": 21}
    )

    @task.ray_workflow(retries=1)
    def by_decorator(x: int, folder: str, run_id=None):
        import ray

        @ray.remote(max_retries=0)
        def first():
            noted(folder, f"first {x}")
            return doubled(x)

        @ray.remote(max_retries=0)
        def second(before):
            noted(folder, f"second {x}")
            if x == 1 and not Path(folder, "failed").exists():
                Path(folder, "failed").touch()
                raise RuntimeError("the first item fails once")
            return [before, run_id]

        return second.bind(first.bind())

    by_decorator.partial(folder=WITNESS + "/{{ task.task_id }}").expand(x=[1, 2])

    fails = RayWorkflowRunOperator(
        task_id="fails",
        workflow="pipeline:fails_once",
        workflow_id="failed-{{ run_id }}",
        arguments={"folder": f"{WITNESS}/fails"},
        runtime_env={"working_dir": SHIPPED},
    )
    resumes = RayWorkflowResumeOperator(
        task_id="resumes",
        workflow_id="failed-{{ run_id }}",
        deferrable=True,
        trigger_rule="all_failed",
    )
    fails >> resumes
    no_module = RayWorkflowRunOperator(task_id="no_module", workflow="no_such_module:daily")
    bad_environment = RayWorkflowRunOperator(
        task_id="bad_environment",
        workflow="pipeline:daily",
        arguments={"folder": WITNESS, "secret": ""},
        runtime_env={"working_dir": "https://127.0.0.1:9/no-such-code.zip"},
    )
    no_cluster = RayWorkflowRunOperator(
        task_id="no_cluster",
        workflow="pipeline:daily",
        ray_workflow_conn_id="no_cluster",
        unreachable_timeout_s=1,
    )
