"""Format 2 of graphs, with tasks as rows: later versions of the package read it. Never change it."""

from airflow_provider_rayworkflow.workflow.model.graph import (
    NamedFunction,
    RetryOptions,
    Shape,
    Task,
    TaskOptions,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

KEY = "v1/workflows/%46lights/00000001.epoch"
SAMPLE = b'{"body":{"base_epoch":1,"claimed_at":10.0,"epoch":1,"graph":{"functions":{"m.load":{"blob":0,"code":"11bb@3.12"}},"kinds":[{"code":"11bb@3.12","function":0,"name":"load","shape":[[-1,-1],["path"]]},{"code":"11bb@3.12","function":1,"name":"join","named_by_author":true,"options":{"retry":{"attempts":2,"wait_factor":2.0,"wait_initial_s":1.0,"wait_max_s":60.0}},"ray_options":3,"shown_options":{"num_cpus":2}}],"tasks":[[0,[1,"a"],[],""],[0,[1.0,null],[],""],[1,2,[0,1],"22cc"]]},"graph_epoch":1,"manager_id":"m","on_change":"reuse","restarts":{},"traceparent":"","user_metadata":{"a":1},"workflow_id":"Flights"},"kind":"epoch","sum":"454b1b41","v":2}\n27c74879 19 24\n{"sizes":[4,4,9,7]}loadjoinargumentsoptions\n'
LOAD = Task(name="load", function=0, code="11bb@3.12", shape=Shape((-1, -1), ("path",)))


def test_a_claim_and_its_graph_are_read():
    store = WorkflowStore(MemoryStore())
    store.bytes.put(KEY, SAMPLE)
    assert store.read_claim("Flights", 1).manager_id == "m"
    graph = store.read_graph("Flights", 1)
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
