"""What a running workflow says of itself in the storage, and what its tasks leave there."""

import os
import platform
import sys

import pytest
import ray
from witness import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store


@ray.remote
def pass_gate(gate):
    gate.wait()


def say(name):
    print(f"{name} on standard output")
    os.system("echo from a program")
    print(f"{name} on standard error", file=sys.stderr)


@ray.remote
def fail_with_output():
    say("fails")
    raise ValueError("at last")


@ray.remote
def return_with_output(name, *inputs):
    if name:
        say(name)


@pytest.mark.usefixtures("manager")
def test_a_task_that_takes_long_is_shown_as_running_on_its_node(gate, new_id, shared_root):
    store = WorkflowStore(open_store(str(shared_root)))
    # Of five tasks on four CPUs one waits for a worker.
    tasks = [pass_gate.options(num_cpus=1).bind(gate) for _ in range(5)]
    end = workflow.run_async(pass_all.bind(*tasks), workflow_id=new_id)

    def look():
        record = store.read_status(new_id)
        progress = record and record.progress
        return progress if progress and progress.running_total == 4 else None

    progress = wait_until(look)
    assert progress.submitted == 5
    assert {task.node for task in progress.running} == {platform.node()}
    assert {task.attempt for task in progress.running} == {1}
    gate.open()
    ray.get(end)
    records = store.read_checkpoints(new_id).records
    assert {record.times.node for record in records.values()} == {platform.node()}


@ray.remote
def pass_all(*values):
    pass


@pytest.mark.usefixtures("manager")
def test_what_a_failed_task_printed_is_in_the_log(new_id, shared_root):
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_with_output.bind(), workflow_id=new_id)
    lines = WorkflowStore(open_store(str(shared_root))).logs.read(new_id).lines
    assert {
        "fails on standard output",
        "from a program",
        "fails on standard error",
    } <= {line.text for line in lines}


@pytest.mark.usefixtures("manager")
def test_what_tasks_print_is_told_apart_also_where_they_share_a_worker(new_id, shared_root):
    tasks = {}
    for name, says in (("a", "a"), ("quiet", ""), ("b", "b")):
        named = return_with_output.options(**workflow.options(task_id=name))
        tasks[name] = named.bind(says, *tasks.values())
    workflow.run(tasks["b"], workflow_id=new_id)
    lines = WorkflowStore(open_store(str(shared_root))).logs.read(new_id).lines
    assert sorted((line.task_id, line.text) for line in lines) == [
        ("a", "a on standard error"),
        ("a", "a on standard output"),
        ("a", "from a program"),
        ("b", "b on standard error"),
        ("b", "b on standard output"),
        ("b", "from a program"),
    ]
