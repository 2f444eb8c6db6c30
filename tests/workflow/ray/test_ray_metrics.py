"""What Prometheus reads from a cluster's metrics endpoint while workflows run there."""

import urllib.request
from collections import defaultdict
from typing import get_args

import pytest
import ray
from managers import manager_actor
from prometheus_client.parser import text_string_to_metric_families
from witness import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd
from airflow_provider_rayworkflow.workflow.storage.keys import Kind

pytestmark = pytest.mark.slow

LARGE = 200_000  # bytes; a value that its worker writes as an object of its own

# Ray sends figures to the endpoint every 2 s here, and a lease is renewed every 5 s.
DEADLINE_S = 100


@ray.remote
def large(n):
    return b"x" * n


@ray.remote
def size(value):
    return len(value)


@ray.remote
def fail(value):
    raise KeyError(value)


@ray.remote
def wait_for(gate):
    gate.wait()


def worker_id_of_manager():
    """Figures have it as a tag: those of an earlier manager may arrive after its end."""
    return ray.get(
        manager_actor().__ray_call__.remote(lambda _: ray.get_runtime_context().get_worker_id())
    )


class Figures:
    """The workflow figures of this cluster."""

    def read(self):
        """Those of the manager that runs now, by name and the one tag that is not Ray's."""
        worker_id = worker_id_of_manager()
        found = defaultdict(float)
        for sample in self._samples():
            if sample.labels["WorkerId"] == worker_id:
                tags = [sample.labels.get(tag) for tag in ("status", "outcome", "kind", "cause")]
                (tag,) = [tag for tag in tags if tag is not None] or [""]
                found[sample.name, tag] += sample.value
        return found

    def tags(self):
        """The tags of our figures, and every value that they have."""
        return {
            (name, value)
            for sample in self._samples()
            for name, value in sample.labels.items()
            if name in ("status", "outcome", "kind", "cause") or not name[0].isupper()
        }

    def _samples(self):
        port = ray.nodes()[0]["MetricsExportPort"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("ray_workflow_")
        ]


@pytest.fixture
def figures(ray_cluster):
    return Figures()


def test_ends_of_workflows_and_tasks_are_counted(fresh_manager, figures, new_id):
    fresh_manager()
    assert workflow.run(size.bind(large.bind(LARGE)), workflow_id=new_id) == LARGE
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail.bind(large.bind(1)), workflow_id=f"{new_id}-failing")

    def has_all():
        found = figures.read()
        are_told = found["ray_workflow_ends_total", "FAILED"] == 1
        return are_told and found["ray_workflow_task_ends_total", "Raised"] == 1 and found

    found = wait_until(has_all, deadline_s=DEADLINE_S)
    assert found["ray_workflow_ends_total", "SUCCESSFUL"] == 1
    assert found["ray_workflow_run_seconds_count", "SUCCESSFUL"] == 1
    assert found["ray_workflow_task_ends_total", "Returned"] == 3
    assert found["ray_workflow_task_ends_total", "Raised"] == 1
    assert found["ray_workflow_failed_attempts_total", "application"] == 1
    assert found["ray_workflow_task_seconds_count", "Returned"] == 3
    assert found["ray_workflow_held", "RUNNING"] == 0
    assert found["ray_workflow_storage_written_bytes_total", "graph"] > 0
    assert found["ray_workflow_storage_written_bytes_total", "checkpoints"] > 0


def test_what_a_worker_writes_is_counted(fresh_manager, figures, new_id):
    fresh_manager()
    for number in range(3):
        workflow.run(large.bind(LARGE), workflow_id=f"{new_id}-{number}")

    def has_written():
        tags = ("ray_workflow_storage_written_bytes_total", "value")
        return sum(
            sample.value
            for sample in figures._samples()
            if (sample.name, sample.labels.get("kind")) == tags
        )

    assert wait_until(lambda: has_written() >= 3 * LARGE and has_written()) >= 3 * LARGE


def test_renewals_of_the_lease_are_counted(fresh_manager, figures):
    fresh_manager()
    wait_until(
        lambda: figures.read()["ray_workflow_storage_write_seconds_count", "lease"] >= 2,
        deadline_s=DEADLINE_S,
    )


def test_the_queue_has_its_length(fresh_manager, figures, new_id, gate):
    def held():
        found = figures.read()
        return found["ray_workflow_held", "RUNNING"], found["ray_workflow_held", "PENDING"]

    fresh_manager(max_running_workflows=1, max_pending_workflows=5)
    refs = [
        workflow.run_async(wait_for.bind(gate), workflow_id=f"{new_id}-{number}")
        for number in range(3)
    ]
    wait_until(lambda: held() == (1, 2), deadline_s=DEADLINE_S)
    gate.open()
    ray.get(refs)
    wait_until(lambda: held() == (0, 0), deadline_s=DEADLINE_S)


def test_tags_have_few_values(fresh_manager, figures, new_id):
    fresh_manager()
    workflow.run(
        large.options(**workflow.options(task_id="one_of_many")).bind(1), workflow_id=new_id
    )
    wait_until(
        lambda: figures.read()["ray_workflow_ends_total", "SUCCESSFUL"] == 1,
        deadline_s=DEADLINE_S,
    )
    known = {
        "status": {"RUNNING", "PENDING", "SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED"},
        "outcome": {completion.__name__ for completion in get_args(AttemptEnd)},
        "kind": set(get_args(Kind)),
        "cause": {cause.value for cause in Cause},
    }
    unknown = {
        (name, value)
        for name, value in figures.tags()
        if value not in known.get(name, ()) and not name.startswith("otel_") and name != "le"
    }
    assert unknown == set()
