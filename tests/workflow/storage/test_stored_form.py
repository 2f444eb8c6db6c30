"""What is stored has this form, and a newer one is refused."""

from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.format.documents import VERSION
from airflow_provider_rayworkflow.workflow.model.graph import (
    NamedFunction,
    RetryOptions,
    Shape,
    Task,
    TaskOptions,
)
from airflow_provider_rayworkflow.workflow.model.records import Blob, JsonOutput
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

KEY = "v1/workflows/%46lights/00000001.epoch"
LOAD = Task(name="load", function=0, code="11bb@3.12", shape=Shape((-1, -1), ("path",)))
SAMPLE = {
    KEY: b'{"body":{"base_epoch":1,"claimed_at":10.0,"epoch":1,"graph":{"functions":{"m.load":{"blob":0,"code":"11bb@3.12"}},"kinds":[{"code":"11bb@3.12","function":0,"name":"load","shape":[[-1,-1],["path"]]},{"code":"11bb@3.12","function":1,"name":"join","named_by_author":true,"options":{"retry":{"attempts":2,"wait_factor":2.0,"wait_initial_s":1.0,"wait_max_s":60.0}},"ray_options":3,"shown_options":{"num_cpus":2}}],"tasks":[[0,[1,"a"],[],""],[0,[1.0,null],[],""],[1,2,[0,1],"22cc"]]},"graph_epoch":1,"manager_id":"m","on_change":"reuse","restarts":{},"traceparent":"","user_metadata":{"a":1},"workflow_id":"Flights"},"kind":"epoch","sum":"454b1b41","v":1}\n27c74879 19 24\n{"sizes":[4,4,9,7]}loadjoinargumentsoptions\n',
    "v1/status/%46lights/00000001-0001-SUCCESSFUL-m.json": b'{"body":{"created_at":10.0,"ended_at":12.5,"epoch":1,"failed_attempts":{},"failed_tasks":null,"failure":null,"manager_id":"m","number":1,"output":{"problem":"","value":[1,2]},"progress":null,"reuse":null,"started_at":10.5,"status":"SUCCESSFUL","stopped_by":"","tasks_done":1,"tasks_reused":0,"tasks_total":1,"user_metadata":{"a":1},"workflow_id":"Flights"},"kind":"status","sum":"e9f444f3","v":1}\n',
    "v1/workflows/%46lights/00000001-00000000.journal": b'{"body":{"epoch":1,"size":168},"kind":"journal","sum":"0e68c713","v":1}\n0bf80ab2 147 5\n{"encoding":"json","form":"value","json_output":{"problem":"","value":[1,2]},"task":"load","times":{"attempt":1,"ended_at":11.5,"started_at":10.5}}[1,2]\n',
    "v1/workflows/%46lights/00000001-2a21fe6d592a19b7de898b50eb53c429-1-90.value": b'{"body":{"task":"big"},"kind":"value","sum":"4ef6ecea","v":1}\n8d4be5a2 2 11\n{}large value\n',
    "v1/leases/m.json": b'{"body":{"actor_id":"a","limits":{"max_pending":null,"max_running":null},"manager_id":"m","package_version":"0.1.0","process":{"host":"h","machine":"b/1","pid":7,"started":"9"},"renewed_at":10.0,"ttl_s":15.0},"kind":"lease","sum":"a66137d8","v":1}\n',
}


@pytest.fixture
def store() -> WorkflowStore:
    objects = MemoryStore()
    for key, data in SAMPLE.items():
        objects.put(key, data)
    return WorkflowStore(objects)


def test_a_status_is_read(store: WorkflowStore):
    assert {name: key.status for name, key in store.list_statuses().items()} == {
        "Flights": "SUCCESSFUL"
    }
    record = store.read_status("Flights")
    assert record is not None
    assert (record.status, record.ended_at, record.user_metadata) == ("SUCCESSFUL", 12.5, {"a": 1})
    assert record.output == JsonOutput(value=[1, 2])


def test_a_claim_and_its_graph_are_read(store: WorkflowStore):
    assert store.read_claim("Flights", 1).manager_id == "m"
    graph = store.read_run("Flights", 1)[1]
    assert list(graph.tasks) == [
        LOAD._replace(arguments=(1, "a")),
        LOAD._replace(arguments=(1.0, None)),
        Task(
            name="join",
            function=1,
            arguments=2,
            upstream=(0, 1),
            named_by_author=True,
            ray_options=3,
            options=TaskOptions(retry=RetryOptions(attempts=2)),
            shown_options={"num_cpus": 2},
            literals="22cc",
            code="11bb@3.12",
        ),
    ]
    assert type(graph.tasks[1].arguments[0]) is float
    assert graph.blobs == [b"load", b"join", b"arguments", b"options"]
    assert graph.functions == {"m.load": NamedFunction(blob=0, code="11bb@3.12")}


def test_checkpoints_are_read(store: WorkflowStore):
    checkpoints = store.read_checkpoints("Flights")
    assert checkpoints.damaged == []
    result = checkpoints.records["load"].result
    assert result is not None
    assert result.inline == b"[1,2]"
    [key] = [key for key in SAMPLE if key.endswith(".value")]
    assert bytes(store.values.read(Blob(key=key, size=90, sum="8d4be5a2-11"))) == b"large value"


def test_the_journal_that_the_architecture_page_shows_is_read():
    page = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()
    key = "v1/workflows/%46lights/00000001-00000000.journal"
    _, _, rest = page.partition(f"\n{key}\n")
    objects = MemoryStore()
    objects.put(key, rest.partition("```")[0].encode())
    checkpoints = WorkflowStore(objects).read_checkpoints("Flights")
    assert checkpoints.damaged == []
    [result] = [record.result for record in checkpoints.records.values()]
    assert result is not None
    assert result.inline == b"[1, 2]"


def test_a_lease_is_read(store: WorkflowStore):
    [lease] = store.leases.list_all()
    assert (lease.manager_id, lease.renewed_at, lease.process.pid) == ("m", 10.0, 7)


@pytest.mark.parametrize("key", SAMPLE)
def test_a_newer_format_is_refused_with_the_remedy(store: WorkflowStore, key: str):
    kind = key.rpartition(".")[2]
    newer = VERSION + 1
    store.bytes.put(key, SAMPLE[key].replace(b'"v":1}', b'"v":%d}' % newer))
    read = {
        "epoch": lambda: store.read_run("Flights", 1)[1],
        "journal": lambda: store.read_checkpoints("Flights"),
        "value": lambda: store.values.read(Blob(key=key, size=90, sum="8d4be5a2-11")),
        "json": lambda: (store.read_status("Flights"), store.leases.read("m")),
    }[kind]
    with pytest.raises(DataLoadError, match=rf"version {newer}, and .* Upgrade the package"):
        read()


def test_foreign_files_in_the_root_are_no_workflows_and_hide_none(store: WorkflowStore):
    for key in (
        "README",
        "v1/README",
        "v1/status/stray.json",
        "v1/status/%46lights/notes.json",
        "v1/status/%46lights/deep/00000009-0000-FAILED-m.json",
        "v1/status/%46lights/x-y-FAILED-m.json",
        "v1/status/%zz/00000001-0000-FAILED-m.txt",
        "v1/workflows/%46lights/notes.txt",
        "v1/workflows/%46lights/00000001-x.journal",
        "v1/leases/README",
        "v2/status/%46lights/00000009-0000-FAILED-m.json",
    ):
        store.bytes.put(key, b"{" * 100_000)
    assert list(store.list_statuses()) == ["Flights"]
    record = store.read_status("Flights")
    assert record is not None
    assert record.status == "SUCCESSFUL"
    assert store.last_epoch("Flights") == 1
    assert store.read_checkpoints("Flights").damaged == []
    assert [lease.manager_id for lease in store.leases.list_all()] == ["m"]
