"""A manager of another version is replaced when it is idle; here without a cluster."""

from dataclasses import replace

import pytest
from sample_records import lease, status_record

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    merged,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.service import versions
from airflow_provider_rayworkflow.workflow.runtime.service.versions import ManagerVersionError
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

LEASE = lease(actor_id="a0", renewed_at=0.0, package_version="0.0.1")
RUNNING = status_record(WorkflowStatus.RUNNING)


class Handle:
    class _actor_id:
        @staticmethod
        def hex() -> str:
            return "a0"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> WorkflowStore:
    monkeypatch.setattr(versions, "find_manager", lambda location: Handle())
    store = WorkflowStore(MemoryStore())
    store.leases.write(LEASE)
    return store


def test_a_busy_manager_of_another_version_is_left_alone_and_the_message_says_what_to_do(store):
    store.write_status(RUNNING)
    with pytest.raises(
        ManagerVersionError, match=r"version 0.0.1, .* still runs \['w'\]. Wait for"
    ):
        versions.replace_other_version(store, wait_s=0.05, look_interval_s=0.01)


def test_an_idle_manager_of_another_version_is_ended(store, monkeypatch):
    ended = []
    monkeypatch.setattr(
        versions, "_end", lambda handle, lease, location: ended.append(lease.manager_id)
    )
    store.write_status(replace(RUNNING, manager_id="other"))
    store.write_status(replace(RUNNING, workflow_id="done", status=WorkflowStatus.SUCCESSFUL))
    versions.replace_other_version(store, wait_s=0)
    assert ended == ["m"]


def test_a_manager_of_this_version_stays(store, monkeypatch):
    monkeypatch.setattr(versions, "_end", lambda *_: pytest.fail("it was ended"))
    store.leases.write(replace(LEASE, package_version=__version__))
    versions.replace_other_version(store, wait_s=0)


def test_environments_are_merged_as_ray_does():
    outer = {"working_dir": "gcs://a", "env_vars": {"A": "1", "B": "1"}}
    inner = {"pip": ["x"], "env_vars": {"B": "2"}}
    assert merged(outer, inner) == {
        "working_dir": "gcs://a",
        "pip": ["x"],
        "env_vars": {"A": "1", "B": "2"},
    }
    assert merged({}, {}) == {}


def test_every_task_of_a_graph_gets_the_environment_of_its_maker():
    import pickle

    from airflow_provider_rayworkflow.workflow.model.codec import dumps
    from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task

    own = dumps({"num_cpus": 2, "runtime_env": {"env_vars": {"B": "2"}}})
    task = Task(name="f", function=0, arguments=0)
    graph = Graph(tasks=[task, task._replace(ray_options=1)], blobs=[b"", own])
    placed = with_environment(graph, {"env_vars": {"A": "1"}})
    assert [pickle.loads(placed.blobs[task.ray_options]) for task in placed.tasks] == [
        {"runtime_env": {"env_vars": {"A": "1"}}},
        {"num_cpus": 2, "runtime_env": {"env_vars": {"A": "1", "B": "2"}}},
    ]
    assert with_environment(graph, {}) is graph
