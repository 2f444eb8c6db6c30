"""With a key, what is not signed with it is refused before anything is unpickled."""

import pytest
import ray

from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    UntrustedDataError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.memory import MemoryStore

VARIABLE = "RAY_WORKFLOW_SIGNING_KEY"


@ray.remote
def large() -> bytes:
    return b"x" * 50_000


def run(store: MemoryStore) -> None:
    with testing.in_process(store) as workflows:
        assert len(workflows.run(large.bind(), workflow_id="w")) == 50_000


def read_all(store: MemoryStore) -> None:
    workflows = WorkflowStore(store)
    workflows.read_graph("w", 1)
    checkpoints = workflows.read_checkpoints("w")
    if checkpoints.damaged:
        raise checkpoints.damaged[0]
    for record in checkpoints.records.values():
        workflows.read_value(record.result.blob)


def test_what_was_signed_is_read_with_the_key_and_without_one(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, "secret")
    run(store)
    read_all(store)
    monkeypatch.delenv(VARIABLE)
    read_all(store)
    assert not any(b"secret" in store.get(entry.key) for entry in store.list("v1"))


@pytest.mark.parametrize("written_with", ["", "another"])
def test_what_is_not_signed_with_the_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, written_with: str
):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, written_with)
    run(store)
    monkeypatch.setenv(VARIABLE, "secret")
    workflows = WorkflowStore(store)
    with pytest.raises(UntrustedDataError, match=r"00000001\.epoch"):
        workflows.read_graph("w", 1)
    [damage] = workflows.read_checkpoints("w").damaged
    assert isinstance(damage, UntrustedDataError)
    with testing.in_process(store) as again, pytest.raises(UntrustedDataError):
        again.resume("w")


def test_a_signed_object_can_not_take_the_place_of_another(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, "secret")
    run(store)
    for entry in list(store.list("v1/workflows")):
        store.put(entry.key.replace("/w/", "/other/"), store.get(entry.key))
    with pytest.raises(UntrustedDataError):
        WorkflowStore(store).read_graph("other", 1)


def test_a_value_over_the_limit_is_refused_with_its_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_WORKFLOW_MAX_VALUE_BYTES", "40000")
    store = MemoryStore()
    with (
        testing.in_process(store) as workflows,
        pytest.raises(WorkflowExecutionError, match=r"large\] returned a bytes .* 40000"),
    ):
        workflows.run(large.bind(), workflow_id="w")
    assert [entry.key for entry in store.list("v1") if entry.key.endswith(".value")] == []
