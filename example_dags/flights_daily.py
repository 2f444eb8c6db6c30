"""New York's flights of 2013, a day a run: a durable Ray workflow of 23 tasks as one Airflow task.

Run a month with ``airflow backfill create --dag-id flights_daily --from-date 2013-01-01 --to-date 2013-01-31``,
or trigger one day with the parameter ``day``.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

with DAG(
    "flights_daily",
    schedule="@daily",
    start_date=pendulum.datetime(2013, 1, 1, tz="UTC"),
    end_date=pendulum.datetime(2013, 12, 31, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    # "" means: the run's own date, never fail, no log.
    params={"day": "", "output_dir": "/tmp/flights_daily", "fail_once": "", "run_log": ""},
):
    RayWorkflowRunOperator(
        task_id="flights",
        workflow="pipelines.flights:daily",
        arguments={
            "day": "{{ params.day or ds }}",
            "output_dir": "{{ params.output_dir }}",
            "fail_once": "{{ params.fail_once }}",
            "run_log": "{{ params.run_log }}",
        },
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
