"""A task of a live Airflow whose workflow leaves traces in a folder."""

from pathlib import Path

from live_airflow import LiveAirflow, wait_for

from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


class LiveTask:
    """The task of one DAG in one run, and the traces of its workflow.

    :param folder: where these are.
    :param of: the ids of the DAG, of the run and of the task.
    """

    def __init__(self, live: LiveAirflow, folder: Path, of: tuple[str, str, str]) -> None:
        self.of = of
        self._live = live
        self._folder = folder
        self.hook = RayWorkflowHook("live")

    @property
    def workflow_id(self) -> str:
        dag_id, run_id, task_id = self.of
        return f"{dag_id}.{task_id}.{run_id}"

    def trigger(self) -> None:
        self._live.unpause(self.of[0])
        self._live.trigger(*self.of[:2])

    def clear(self) -> None:
        """Clear the task instance after its end."""
        self.wait_until_clearable()
        self._live.clear(*self.of)

    def wait_until_clearable(self) -> None:
        """Airflow's scheduler, about to end the run, would miss what is cleared just then."""
        self._live.wait_for_run(*self.of[:2])

    def ends(self, *, try_number: int) -> str:
        return self._live.wait_for_end(*self.of, try_number=try_number)

    def output(self) -> object:
        return self._live.xcom(*self.of)

    def log(self, *, try_number: int) -> str:
        return self._live.log(*self.of, try_number=try_number)

    def wait_for_status(self, status: WorkflowStatus) -> StoredWorkflow:
        def look() -> StoredWorkflow | None:
            found = self.hook.find(self.workflow_id)
            return found if found and found.status is status else None

        return wait_for(f"the status {status} of {self.workflow_id}", look)

    def open_gate(self) -> None:
        (self._folder / "open").touch()
