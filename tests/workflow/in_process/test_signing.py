"""With a key, what is not signed with it is refused before anything is unpickled."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    StorageError,
    UntrustedDataError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.format.documents import dump_line
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.events import EventStore, StoredEvent
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Owner, StopRequest
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

VARIABLE = "RAY_WORKFLOW_SIGNING_KEY"


@ray.remote
def large() -> bytes:
    return b"x" * 50_000


def run(store: MemoryStore) -> None:
    with testing.in_process(store) as workflows:
        assert len(workflows.run(large.bind(), workflow_id="w")) == 50_000


def read_all(store: MemoryStore) -> None:
    workflows = WorkflowStore(store)
    workflows.read_run("w", 1)[1]
    checkpoints = workflows.read_checkpoints("w")
    if checkpoints.damaged:
        raise checkpoints.damaged[0]
    for record in checkpoints.records.values():
        workflows.values.read(record.result.blob)


def test_a_signed_document_is_read_with_the_key_and_without_one(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, "secret")
    run(store)
    read_all(store)
    monkeypatch.delenv(VARIABLE)
    read_all(store)
    assert not any(b"secret" in store.get(entry.key) for entry in store.list("v1"))


@pytest.mark.parametrize("written_with", ["", "another"])
def test_a_document_that_is_not_signed_with_the_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, written_with: str
):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, written_with)
    run(store)
    monkeypatch.setenv(VARIABLE, "secret")
    workflows = WorkflowStore(store)
    with pytest.raises(UntrustedDataError, match=r"00000001\.epoch"):
        workflows.read_run("w", 1)[1]
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
        WorkflowStore(store).read_run("other", 1)[1]


def test_a_value_over_the_limit_is_refused_with_its_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_WORKFLOW_MAX_VALUE_BYTES", "40000")
    store = MemoryStore()
    with (
        testing.in_process(store) as workflows,
        pytest.raises(WorkflowExecutionError, match=r"large\] returned a bytes .* 40000"),
    ):
        workflows.run(large.bind(), workflow_id="w")
    assert [entry.key for entry in store.list("v1") if entry.key.endswith(".value")] == []


# ---- documents that are only JSON


@ray.remote
def greeting() -> str:
    return "the true output"


def key_of(store: MemoryStore, part: str) -> str:
    [key] = [entry.key for entry in store.list("v1") if part in entry.key]
    return key


def write_all(store: MemoryStore) -> None:
    """One document of each kind that decides something and is not pickled."""
    with testing.in_process(store) as workflows:
        workflows.run(greeting.bind(), workflow_id="w")
    write = WorkflowStore(store)
    write.leases.write(
        Lease(manager_id="m", actor_id="a", process=Process.current(), renewed_at=time.time())
    )
    EventStore(write.bytes).add(
        StoredEvent(workflow_id="w", event_key="k", payload=1, number=0, posted_at=0.0)
    )
    mailbox = Mailbox(store)
    mailbox.take_over(Owner(workflow_id="w", token="t", submission_id="", since=1.0))
    mailbox.request_stop(
        StopRequest(workflow_id="w", token="t", how="suspend", requested_at=time.time())
    )
    Completions(write, "watcher", statuses=[WorkflowStatus.SUCCESSFUL]).look()


def look(store: MemoryStore) -> list[Any]:
    watching = Completions(WorkflowStore(store), "watcher", statuses=[WorkflowStatus.SUCCESSFUL])
    return watching.look()


READS: dict[str, Callable[[MemoryStore], Any]] = {
    "v1/status/w/": lambda store: WorkflowStore(store).read_status("w"),
    "v1/leases/m.json": lambda store: WorkflowStore(store).leases.read("m"),
    "v1/events/": lambda store: EventStore(store).read("w", "k", 0),
    "v1/owners/": lambda store: Mailbox(store).read_owner("w"),
    "v1/requests/": lambda store: Mailbox(store).read_request("w", "t"),
    "v1/watchers/": look,
}


def unsigned(store: MemoryStore, key: str) -> bytes:
    """The document as a writer without the key can make it: whole, with its checksum."""
    line = json.loads(store.get(key))
    return dump_line(line["kind"], line["body"])


@pytest.mark.invariant(7)
@pytest.mark.parametrize("part", READS)
@pytest.mark.parametrize("how", ["not signed", "signed with another key", "signature of another"])
def test_no_document_that_decides_something_is_believed_without_its_signature(
    monkeypatch: pytest.MonkeyPatch, part: str, how: str
):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, "another" if how == "signed with another key" else "secret")
    write_all(store)
    monkeypatch.setenv(VARIABLE, "secret")
    key = key_of(store, part)
    if how == "not signed":
        store.put(key, unsigned(store, key))
    elif how == "signature of another":
        other = key_of(store, "v1/leases/m.json" if "leases" not in part else "v1/owners/")
        signature = json.loads(store.get(other))["mac"].encode()
        store.put(key, unsigned(store, key)[:-2] + b',"mac":"%b"}\n' % signature)
    with pytest.raises(UntrustedDataError, match=key):
        READS[part](store)


@pytest.mark.invariant(7)
def test_an_edited_output_is_not_believed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "secret")
    store = MemoryStore()
    write_all(store)
    key = key_of(store, "v1/status/w/")
    line = json.loads(store.get(key))
    line["body"]["output"]["value"] = "a forged output"
    forged = dump_line("status", line["body"])[:-2] + b',"mac":"%b"}\n' % line["mac"].encode()
    store.put(key, forged)
    with pytest.raises(UntrustedDataError, match=key):
        StatusReader(WorkflowStore(store)).read("w")


@pytest.mark.parametrize("target", ["v1/status/other/", "v1/status/w/"])
def test_a_signed_status_counts_under_its_own_name_alone(
    monkeypatch: pytest.MonkeyPatch, target: str
):
    """Neither for another workflow nor for a later epoch of the same one."""
    monkeypatch.setenv(VARIABLE, "secret")
    store = MemoryStore()
    write_all(store)
    key = key_of(store, "v1/status/w/")
    later = key.replace("v1/status/w/00000001", f"{target}00000009")
    store.put(later, store.get(key))
    with pytest.raises(UntrustedDataError, match=later):
        WorkflowStore(store).read_status(target.split("/")[2])


def test_a_list_by_names_alone_believes_no_name_of_a_forged_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(VARIABLE, "secret")
    store = MemoryStore()
    write_all(store)
    key = "v1/status/forged/00000001-0001-SUCCESSFUL-m.json"
    store.put(key, unsigned(store, key_of(store, "v1/status/w/")))
    workflows = WorkflowStore(store)
    listed = StatusReader(workflows).list_workflows()
    assert [workflow_id for workflow_id, *_ in listed] == ["w"]
    assert key in caplog.text
    assert [ended.workflow_id for ended in look(store)] == []
    rebuild(workflows, now=1.0)
    store.delete(["v1/leases/m.json"])
    assert [found.workflow_id for found in Overview(workflows).find(list(WorkflowStatus))] == ["w"]


# ---- several keys


@pytest.mark.parametrize("keys", ["new,old", "new old", " new, old\n", "new\nold"])
def test_the_first_key_signs_and_all_verify(monkeypatch: pytest.MonkeyPatch, keys: str):
    store = MemoryStore()
    monkeypatch.setenv(VARIABLE, "old")
    write_all(store)
    run(written_before := MemoryStore())
    monkeypatch.setenv(VARIABLE, keys)
    for read in READS.values():
        read(store)
    read_all(written_before)
    written_now = MemoryStore()
    write_all(written_now)
    monkeypatch.setenv(VARIABLE, "new")
    for read in READS.values():
        read(written_now)
    with pytest.raises(UntrustedDataError):
        WorkflowStore(store).read_status("w")
    monkeypatch.setenv(VARIABLE, "old")
    with pytest.raises(UntrustedDataError):
        WorkflowStore(written_now).read_status("w")


@pytest.mark.parametrize("text", [",", "  ", "\n", " , ,"])
def test_a_variable_that_is_set_and_has_no_key_does_not_mean_unsigned(
    monkeypatch: pytest.MonkeyPatch, text: str
):
    store = MemoryStore()
    write_all(store)
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(StorageError, match="only commas and white space"):
        WorkflowStore(store).read_status("w")


def test_a_key_need_not_be_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "caf\udce9")  # as `os.environ` has a byte that is not UTF-8
    store = MemoryStore()
    write_all(store)
    assert WorkflowStore(store).read_status("w") is not None


def test_a_store_with_keys_of_its_own_asks_the_environment_for_none():
    """Airflow's triggerer and API server have many connections, each with its secret."""
    store = MemoryStore()
    write_all(store)
    with pytest.raises(UntrustedDataError):
        WorkflowStore(store, signing=SigningKeys.from_text("secret")).read_status("w")
