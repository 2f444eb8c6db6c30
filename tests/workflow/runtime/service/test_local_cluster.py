"""What Ray leaves on the machine when a local Ray has ended."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
import ray
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.runtime.service.local_cluster import RayOfMachine

cluster = RayOfMachine()
started = cluster.start(
    Size(num_cpus=1, num_gpus=0, object_store_memory_mb=80), token_file=sys.argv[1]
)
folder = ray._private.worker._global_node.get_session_dir_path()
assert os.path.basename(folder) == started.cluster_id
assert os.listdir(folder)
cluster.stop()
print("left" if os.path.exists(folder) else "gone")
"""


def test_a_local_ray_that_has_ended_leaves_no_folder_of_its_session(tmp_path):
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(token)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "gone\n"


KEPT = """
import os, signal, sys, threading, time
import psutil, ray
from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.manager_watch import ManagerWatch
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of
from airflow_provider_rayworkflow.workflow.runtime.service.local_cluster import RayOfMachine

token, storage = sys.argv[1:]
memory = psutil.virtual_memory()
used = memory.total - memory.available + 3 * 2**30
os.environ["RAY_memory_usage_threshold"] = f"{used / memory.total:.4f}"
os.environ["RAY_memory_monitor_refresh_ms"] = "500"
cluster = RayOfMachine()
cluster.start(Size(num_cpus=1, num_gpus=0, object_store_memory_mb=80), token_file=token)
is_up = threading.Event()
watch = ManagerWatch(cluster, storage, report=lambda *_: is_up.set())
watch.ask(storage)
assert is_up.wait(120)
"""

OUT_OF_MEMORY = """
@ray.remote(**workflow.options(task_id="fit", max_oom_retries=1))
def fit():
    eaten = []
    while True:
        eaten.append(os.urandom(2**20) * 64)
        time.sleep(0.02)

def said(workflow_id):
    before = manager_of(storage)._actor_id
    try:
        workflow.run(fit.bind(), workflow_id=workflow_id)
    except workflow.WorkflowError:
        failed = workflow.get_metadata(workflow_id)["failed_attempts"]
        if manager_of(storage)._actor_id == before:
            return f"{workflow.get_status(workflow_id)} {failed}"

workflow.init(storage=storage)
# Other programs of the machine may take the memory, too: then Ray kills what is left, and that is the manager.
for number in range(5):
    try:
        if text := said(f"w{number}"):
            print("said", text)
            break
    except (ray.exceptions.RayError, ValueError):
        time.sleep(5)  # until there is another one
cluster.stop()
"""

KILLED = """
begun, gate = storage + ".begun", storage + ".gate"

@ray.remote(**workflow.options(task_id="fit"))
def fit():
    with open(begun, "a") as file:
        file.write("begun ")
    while not os.path.exists(gate):
        time.sleep(0.05)
    return 1

workflow.init(storage=storage, max_running_workflows=3)
workflow.run_async(fit.bind(), workflow_id="w")
first = manager_of(storage)._actor_id
while not os.path.exists(begun):
    time.sleep(0.05)
(manager,) = [p for p in psutil.Process().children(recursive=True) if "WorkflowManag" in p.name()
              or "WorkflowManag" in " ".join(p.cmdline())]
manager.send_signal(signal.SIGKILL)
while open(begun).read().count("begun") < 2:  # nothing asks for it: the keeper's watch sees it
    time.sleep(0.05)
open(gate, "w").close()
print("said", workflow.get_output("w"), manager_of(storage)._actor_id != first)
workflow.init(storage=storage, max_running_workflows=3)  # as the one before it
cluster.stop()
"""


def run_program(program: str, tmp_path: Path) -> str:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    done = subprocess.run(
        [sys.executable, "-c", KEPT + program, str(token), str(tmp_path / "storage")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    # Ray says things before and after it.
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("said ")]
    return said.removeprefix("said ")


@pytest.mark.timeout(300)
def test_on_a_local_ray_a_task_that_takes_all_memory_uses_up_its_own_budget(tmp_path: Path):
    assert run_program(OUT_OF_MEMORY, tmp_path) == "RESUMABLE {'out_of_memory': 2}"


@pytest.mark.timeout(300)
def test_the_keeper_replaces_a_manager_that_was_killed_and_its_workflows_go_on(tmp_path: Path):
    assert run_program(KILLED, tmp_path) == "1 True"
