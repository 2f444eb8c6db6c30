"""Drivers outside of the cluster, by Ray Client."""

import os
import socket
import subprocess
import sys

import drivers
import pytest
import ray
from witness import wait_until

from airflow_provider_rayworkflow import workflow

pytestmark = pytest.mark.slow


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def client_address(ray_cluster):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gcs = ray.get_runtime_context().gcs_address
    command = ["-m", "ray.util.client.server", "--mode", "specific-server"]
    server = subprocess.Popen(
        [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port), "--address", gcs],
        env=os.environ,
    )
    wait_until(lambda: is_open(port))
    yield f"ray://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def test_everything_works_by_ray_client(client_address, manager, new_id, tmp_path, gate, ledger):
    output = drivers.run(
        f"""
        ray.init("{client_address}")

        @workflow.options(task_id="add")
        @ray.remote
        def add(a, b):
            return a + b

        @ray.remote
        def wait():
            gate.wait()

        @ray.remote
        def fail():
            raise ValueError("broken")

        print("output", workflow.run(add.bind(add.bind(1, 2), 3), workflow_id="{new_id}"))
        print("again", workflow.get_output("{new_id}", task_id="add"))
        print("status", workflow.get_status("{new_id}"))
        print("metadata", workflow.get_metadata("{new_id}")["status"])
        print("listed", ("{new_id}", "SUCCESSFUL") in workflow.list_all())
        ref = workflow.run_async(wait.bind(), workflow_id="{new_id}-waits")
        print("ready", ray.wait([ref], timeout=0.2)[0])
        workflow.cancel("{new_id}-waits")
        try:
            ray.get(ref)
        except workflow.WorkflowCancellationError:
            print("told of the cancel")
        try:
            workflow.run(fail.bind(), workflow_id="{new_id}-fails")
        except workflow.WorkflowExecutionError as exc:
            print("failed", repr(exc.__cause__))
        """,
        tmp_path,
    )
    for line in (
        "output 6",
        "again 3",
        "status SUCCESSFUL",
        "metadata SUCCESSFUL",
        "listed True",
        "ready []",
        "told of the cancel",
        "failed ValueError('broken')",
    ):
        assert line in output
    assert workflow.get_output(new_id) == 6
    assert workflow.get_status(f"{new_id}-waits") is workflow.CANCELED


def test_what_a_client_binds_arrives(client_address, manager, new_id, tmp_path):
    output = drivers.run(
        f"""
        from ray.dag import InputNode
        from ray.exceptions import RayTaskError

        ray.init("{client_address}")

        @ray.remote(num_cpus=0)
        class Counter:
            def add(self, value):
                return value + 1

        @ray.remote
        def gather(counter, ref, refs, added):
            return [ray.get(counter.add.remote(ref)), ray.get(refs), added]

        @ray.remote
        def count_down(n):
            return workflow.continuation(count_down.bind(n - 1)) if n else "end"

        @ray.remote
        def fail():
            raise ValueError("broken")

        counter = Counter.remote()
        with InputNode() as given:
            graph = gather.bind(counter, ray.put(1), [ray.put(2)], given.added)
        print("gathered", workflow.run(graph, added=count_down.bind(3)))
        caught = fail.options(**workflow.options(catch_exceptions=True)).bind()
        print("caught", repr(workflow.run(caught)[1]))
        try:
            workflow.run(fail.bind(), workflow_id="{new_id}")
        except RayTaskError as exc:
            print("error of Ray", isinstance(exc, workflow.WorkflowExecutionError))
        """,
        tmp_path,
    )
    assert "gathered [2, [2], 'end']" in output
    assert "caught ValueError('broken')" in output
    assert "error of Ray True" in output
