"""A manager of another version is replaced when it is idle; here without a cluster."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray
from sample_records import lease, status_record

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.model.code_variables import (
    CODE_VARIABLE,
    PATH_VARIABLE,
    base_variables,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    base_of_workers,
    current_environment,
    merged,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.service.versions import (
    ManagerVersionError,
    replace_other_version,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

LEASE = lease(actor_id="a0", renewed_at=0.0, package_version="0.0.1")
RUNNING = status_record(WorkflowStatus.RUNNING)


class Handle:
    """Of a manager's actor."""

    _actor_id = SimpleNamespace(hex=lambda: "a0")
    close = SimpleNamespace(remote=lambda: "its end")


class Actors:
    """The one that runs, and what was done with it; in the place of Ray."""

    def __init__(self) -> None:
        self.running: Handle | None = Handle()
        self.closed = False

    def find(self, location: str) -> Handle | None:
        return self.running

    def get(self, answer: str, *, timeout: float) -> None:
        assert answer == "its end"
        self.closed = True

    def kill(self, handle: Handle, *, no_restart: bool) -> None:
        assert (handle, no_restart) == (self.running, True)
        self.running = None


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    actors = Actors()
    monkeypatch.setattr(ray, "get", actors.get)
    monkeypatch.setattr(ray, "kill", actors.kill)
    return actors


@pytest.fixture
def store() -> WorkflowStore:
    store = WorkflowStore(MemoryStore())
    store.leases.write(LEASE)
    return store


def test_a_busy_manager_of_another_version_is_left_alone_and_the_message_says_what_to_do(
    store: WorkflowStore, actors: Actors
):
    store.write_status(RUNNING)
    with pytest.raises(
        ManagerVersionError, match=r"version 0.0.1, .* still runs \['w'\]. Wait for"
    ):
        replace_other_version(store, wait_s=0.05, look_interval_s=0.01, find=actors.find)
    assert actors.running is not None


def test_an_idle_manager_of_another_version_is_ended(store: WorkflowStore, actors: Actors):
    store.write_status(replace(RUNNING, manager_id="other"))
    store.write_status(replace(RUNNING, workflow_id="done", status=WorkflowStatus.SUCCESSFUL))
    replace_other_version(store, wait_s=0, find=actors.find)
    assert actors.closed
    assert actors.running is None


def test_a_manager_of_this_version_stays(store: WorkflowStore, actors: Actors):
    store.leases.write(replace(LEASE, package_version=__version__))
    replace_other_version(store, wait_s=0, find=actors.find)
    assert not actors.closed
    assert actors.running is not None


def test_environments_are_merged_as_ray_does():
    outer = {"working_dir": "gcs://a", "env_vars": {"A": "1", "B": "1"}}
    inner = {"pip": ["x"], "env_vars": {"B": "2"}}
    assert merged(outer, inner) == {
        "working_dir": "gcs://a",
        "pip": ["x"],
        "env_vars": {"A": "1", "B": "2"},
    }
    assert merged({}, {}) == {}


def test_the_environment_of_a_process_has_the_code_that_its_local_ray_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
):
    """Else the tasks of a workflow that a task starts would not say later which code they were made with."""
    code = {CODE_VARIABLE: "1", PATH_VARIABLE: "/dags"}
    before = current_environment()
    for name, value in base_variables(code).items():
        monkeypatch.setenv(name, value)
    assert current_environment() == before | {"env_vars": before.get("env_vars", {}) | code}
    # Ray hands an environment of this process down to its workers, whatever the others have.
    assert base_of_workers() == ({} if before else code)


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
