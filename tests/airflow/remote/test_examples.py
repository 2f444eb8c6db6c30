"""The example DAGs that the docs quote, run on a cluster. That of the README runs on the local Ray."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from dag_test import Outcome, test_dag
from sample_records import claim_epoch, status_record

from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.testing import in_process

EXAMPLES = Path(__file__).parents[3] / "example_dags"
RUN = (
    "ray_taskflow.py",
    "ray_mapped.py",
    "ray_on_cluster.py",
    "ray_deferrable.py",
    "ray_sensor.py",
    "ray_retry_policy.py",
    "ray_maintenance.py",
)
MONTH_S = 31 * 24 * 3600

pytestmark = pytest.mark.timeout(1_050)


@pytest.fixture(scope="module")
def left(root: Path) -> WorkflowStore:
    """What maintenance finds: a workflow that was interrupted, one that is long over."""

    @ray.remote(max_retries=0)
    def gate(folder):
        Path(folder, "reached").touch()
        while not Path(folder, "open").exists():
            time.sleep(0.05)
        return "through"

    folder = root.parent / "left"
    folder.mkdir()
    with in_process(str(root)) as workflows:
        workflows.run_async(gate.bind(str(folder)), workflow_id="interrupted")
        while not (folder / "reached").exists():
            time.sleep(0.05)
    (folder / "open").touch()
    store = WorkflowStore(open_store(str(root)))
    ended_at = time.time() - MONTH_S
    graph = Graph(tasks=[Task(name="f", function=0, arguments=0)], blobs=[b""])
    assert claim_epoch(store, "old", graph, now=ended_at)
    record = status_record(WorkflowStatus.SUCCESSFUL, "old", created_at=ended_at, ended_at=ended_at)
    store.write_status(record)
    return store


@pytest.fixture(scope="module")
def outcomes(
    airflow_home: Path, connection: Callable[..., str], left: WorkflowStore, tmp_path_factory
) -> Iterator[dict[str, Future[Outcome]]]:
    """All of them, beside each other."""
    confs = {"ray_retry_policy.py": {"line": ""}}

    def run(name: str) -> Outcome:
        home = tmp_path_factory.mktemp("home")
        shutil.copy(airflow_home / "airflow.db", home)
        environment = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(),
        }
        return test_dag(home, EXAMPLES / name, environment, **confs.get(name, {}))

    with ThreadPoolExecutor(2) as two:
        yield {Path(name).stem: two.submit(run, name) for name in RUN}


Outcomes = dict[str, Future[Outcome]]


def test_a_taskflow_function_is_a_workflow(outcomes: Outcomes):
    outcome = outcomes["ray_taskflow"].result()
    assert outcome.xcoms["count_words", "return_value"] == {"fish": 4}, outcome.log


def test_each_item_of_a_mapped_task_is_a_workflow(outcomes: Outcomes):
    outcome = outcomes["ray_mapped"].result()
    assert outcome.xcoms["regions_of", "return_value"] == ["north", "south"], outcome.log
    ids = [outcome.xcoms[f"report.{index}", "workflow_id"] for index in (0, 1)]
    assert ids == [f"ray_mapped.report.{outcome.run_id}.{index}" for index in (0, 1)]


def test_code_is_shipped_with_the_task(outcomes: Outcomes):
    outcome = outcomes["ray_on_cluster"].result()
    assert outcome.xcoms["common_words", "return_value"] == {"fish": 4}, outcome.log


def test_a_deferrable_task_waits_in_the_triggerer(outcomes: Outcomes):
    outcome = outcomes["ray_deferrable"].result()
    assert outcome.xcoms["common_words", "return_value"] == {"fish": 2, "one": 1, "two": 1}
    assert "waiting in the triggerer" in outcome.log


def test_sensors_wait_for_a_task_and_for_the_end(outcomes: Outcomes):
    outcome = outcomes["ray_sensor"].result()
    assert set(outcome.states.values()) == {"success"}, outcome.log
    assert outcome.xcoms["started", "return_value"] == f"words-{outcome.run_id}"
    assert outcome.xcoms["finished", "return_value"] == "SUCCESSFUL"


def test_the_retry_policy_does_not_try_bad_input_again(outcomes: Outcomes):
    outcome = outcomes["ray_retry_policy"].result()
    assert (outcome.states["first_word"], outcome.tries["first_word"]) == ("failed", 1)
    assert "ValueError: the line is empty" in outcome.log
    assert "ValueError is one of fail_on" in outcome.log


def test_maintenance_resumes_and_prunes(outcomes: Outcomes, left: WorkflowStore):
    outcome = outcomes["ray_maintenance"].result()
    assert outcome.xcoms["resume", "return_value"] == ["interrupted"], outcome.log
    assert outcome.xcoms["prune", "return_value"] == ["old"]
    while (record := left.read_status("interrupted")).status is not WorkflowStatus.SUCCESSFUL:
        time.sleep(0.1)
    assert record.output.value == "through"
    assert left.read_status("old") is None
