"""A DAG that starts whenever a workflow ends well, also one that ran outside Airflow."""

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_rayworkflow.triggers import RayWorkflowEventTrigger

words = Asset(
    "ray_words",
    watchers=[
        AssetWatcher(
            name="ray_words",
            trigger=RayWorkflowEventTrigger(workflow_id_prefix="words-", poll_interval_s=5),
        )
    ],
)

with DAG("ray_finished", schedule=[words]):

    @task
    def finished(triggering_asset_events=None) -> list[str]:
        events = triggering_asset_events[words]
        return [event.extra["payload"]["workflow_id"] for event in events]

    finished()
