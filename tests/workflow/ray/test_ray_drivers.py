"""Workflows outlive the drivers that started them; any driver of the cluster can ask for them."""

import os
import subprocess
import uuid

import drivers
import numpy as np
import pytest
import ray
from managers import kill_manager
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from witness import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import (
    has_several_managers,
    manager_of,
)

CHAIN = """
@ray.remote
def count(number):
    ledger.write(number)
    if number == 3:
        gate.wait()
    return workflow.continuation(count.bind(number + 1)) if number < 6 else number
"""


@pytest.fixture
def address(manager):
    return ray.get_runtime_context().gcs_address


def test_a_workflow_goes_on_after_its_driver_has_exited(address, new_id, tmp_path, gate, ledger):
    drivers.run(
        f"""
        @ray.remote
        def later(refs, value, large):
            gate.wait()
            return ray.get(refs), value, float(large.sum())

        import numpy as np
        ray.init("{address}", namespace="elsewhere")
        dag = later.bind([ray.put("in a list")], ray.put("direct"), np.ones(2**20))
        workflow.run_async(dag, workflow_id="{new_id}")
        """,
        tmp_path,
    )
    assert workflow.get_status(new_id) is workflow.RUNNING
    gate.open()
    assert workflow.get_output(new_id) == (["in a list"], "direct", 2**20)


def test_a_workflow_goes_on_after_its_driver_was_killed(address, new_id, tmp_path, gate, ledger):
    process = drivers.start(
        CHAIN
        + f"""
ray.init("{address}")
workflow.run(count.bind(0), workflow_id="{new_id}")
""",
        tmp_path,
    )
    ledger.wait_for(3)
    process.kill()
    process.wait()
    assert workflow.get_status(new_id) is workflow.RUNNING
    gate.open()
    assert workflow.get_output(new_id) == 6
    assert ledger.lines() == ["0", "1", "2", "3", "4", "5", "6"]


def test_another_driver_sees_everything_and_may_do_everything(address, new_id, tmp_path, gate):
    @ray.remote
    def value():
        return {"a": [1, 2]}

    @ray.remote
    def wait():
        gate.wait()

    workflow.run(value.bind(), workflow_id=new_id, metadata={"from": "first"})
    workflow.run_async(wait.bind(), workflow_id=f"{new_id}-waits")
    output = drivers.run(
        f"""
        ray.init("{address}")
        print("output", workflow.get_output("{new_id}"))
        print("status", workflow.get_status("{new_id}"))
        print("metadata", workflow.get_metadata("{new_id}")["user_metadata"])
        workflow.cancel("{new_id}-waits")
        workflow.delete("{new_id}")
        """,
        tmp_path,
    )
    assert "output {'a': [1, 2]}" in output
    assert "status SUCCESSFUL" in output
    assert "metadata {'from': 'first'}" in output
    assert workflow.get_status(f"{new_id}-waits") is workflow.CANCELED
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)


def test_another_driver_gets_the_error_with_its_cause(address, new_id, tmp_path):
    @ray.remote
    def fail():
        raise ZeroDivisionError("by zero")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail.bind(), workflow_id=new_id)
    output = drivers.run(
        f"""
        ray.init("{address}")
        try:
            workflow.get_output("{new_id}")
        except ValueError as exc:
            print("error", exc.task_id, repr(exc.__cause__))
        """,
        tmp_path,
    )
    assert "locals.fail ZeroDivisionError('by zero')" in output


def test_functions_and_classes_of_a_script_are_known_where_it_resumes(
    address, new_id, tmp_path, gate
):
    drivers.run(
        f"""
        class Trip:
            def __init__(self, city):
                self.city = city

        @ray.remote
        def book(city):
            return Trip(city)

        def shout(text):
            return text.upper()

        @ray.remote
        def confirm(trip):
            if not gate.is_open:
                raise RuntimeError("not yet")
            return shout(trip.city)

        ray.init("{address}")
        try:
            workflow.run(confirm.bind(book.bind("Oslo")), workflow_id="{new_id}")
        except workflow.WorkflowExecutionError:
            pass
        """,
        tmp_path,
    )
    gate.open()
    assert workflow.resume(new_id) == "OSLO"


# ---- logs


LOGGED = """
@workflow.options(task_id="greet")
@ray.remote(name="shown by Ray")
def greet():
    print("hello from the task")
    return 1

@workflow.options(task_id="fail")
@ray.remote(max_retries=1, retry_exceptions=True)
def fail(value):
    raise ValueError("broken")

for _ in range(2):
    try:
        workflow.run(fail.bind(greet.bind()), workflow_id="logged")
    except workflow.WorkflowExecutionError:
        pass
output = Path(here / "output")
wait_until(lambda: output.read_text().count("[FAILED]\\t[logged@fail]") == 4, deadline_s=20)
"""

LINES = [
    'Workflow job created. [id="logged"]',
    "Task status [RUNNING]\t[logged@greet]",
    "Task status [SUCCESSFUL]\t[logged@greet]",
    "Task status [RETRY]\t[logged@fail]",
    "Task status [FAILED]\t[logged@fail]",
    "Workflow logged goes on: 1 task reused, 0 changed, 0 new, 0 dropped, 1 not finished before",
    "hello from the task",
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What a program prints that names no cluster and calls no init."""
    folder = tmp_path_factory.mktemp("first")
    first = 'print("list", workflow.list_all())\n'
    drivers.run(first + LOGGED, folder, RAY_WORKFLOW_STORAGE=str(folder / "storage"))
    assert list((folder / "storage").rglob("*logged*"))
    return (folder / "output").read_text()


@pytest.mark.slow
def test_the_first_call_starts_ray_and_uses_the_storage_of_the_environment(printed):
    assert "list []" in printed


@pytest.mark.slow
def test_a_driver_prints_what_its_workflows_do(printed):
    assert [line for line in LINES if line not in printed] == []


@pytest.mark.slow
def test_what_a_task_prints_has_its_workflow_and_id_in_front(printed):
    [line] = [line for line in printed.splitlines() if line.endswith("hello from the task")]
    assert "(logged@greet pid=" in line


@pytest.mark.slow
def test_a_driver_prints_its_own_workflows_under_a_manager_of_another_driver(
    address, tmp_path, new_id
):
    @ray.remote
    def shout():
        print("of another driver")

    watching = LOGGED.replace("wait_until(", "(here / 'watching').touch()\nwait_until(")
    process = drivers.start(f'ray.init("{address}")\n{watching}', tmp_path)
    try:
        wait_until(lambda: (tmp_path / "watching").exists())
        workflow.run(shout.bind(), workflow_id=new_id)
        assert process.wait(90) == 0
    finally:
        process.kill()
        workflow.delete("logged")
    output = (tmp_path / "output").read_text()
    assert [line for line in LINES if line not in output] == []
    assert new_id not in output
    assert "of another driver" not in output


# ---- without init


@pytest.mark.slow
def test_run_as_the_first_call_uses_a_default_storage_and_warns(tmp_path):
    name = f"test-{uuid.uuid4()}"
    output = drivers.run(
        f"""
        os.environ.pop("RAY_WORKFLOW_STORAGE", None)

        @ray.remote
        def task():
            return "value"

        print("output", workflow.run(task.bind(), workflow_id="{name}"))
        workflow.delete("{name}")
        """,
        tmp_path,
    )
    assert "output value" in output
    assert "UserWarning" in output
    assert "/tmp/ray/workflow_data" in output


# ---- storage


def test_another_storage_has_a_manager_and_workflows_of_its_own(
    manager, shared_root, tmp_path, new_id
):
    @ray.remote
    def one():
        return 1

    workflow.run(one.bind(), workflow_id=new_id)
    workflow.init(storage=str(tmp_path))
    try:
        assert workflow.list_all() == []
        assert has_several_managers()
    finally:  # other tests have one manager in this cluster
        ray.kill(manager_of(str(tmp_path)), no_restart=True)
        wait_until(lambda: not has_several_managers())
        workflow.init(storage=str(shared_root))
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL


@pytest.mark.parametrize("wrong", ["relative/path", "nope://bucket", "http://host/x"])
def test_a_storage_that_cannot_be_opened_is_refused(ray_cluster, fresh_manager, wrong):
    fresh_manager()
    kill_manager()
    with pytest.raises(ValueError, match=wrong):
        workflow.init(storage=wrong)


def test_a_storage_that_cannot_be_written_is_refused(fresh_manager, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataSaveError, match="can't be written"):
        fresh_manager(storage=tmp_path / "file" / "below")
    # And nothing is left in the way of the next try.
    fresh_manager(storage=tmp_path / "good")


def test_a_file_uri_is_a_path(fresh_manager, tmp_path):
    fresh_manager()
    kill_manager()
    workflow.init(storage=f"file://{tmp_path}/by-uri")

    @ray.remote
    def task():
        return 1

    assert workflow.run(task.bind(), workflow_id="a") == 1
    assert list((tmp_path / "by-uri").rglob("*.journal"))


def test_a_pyarrow_file_system_is_a_storage(fresh_manager, tmp_path):
    fresh_manager()
    kill_manager()
    (tmp_path / "by-object").mkdir()
    workflow.init(storage=SubTreeFileSystem(str(tmp_path / "by-object"), LocalFileSystem()))

    @ray.remote
    def make():
        return np.ones(2**14)

    @ray.remote
    def total(values):
        return float(values.sum())

    assert workflow.run(total.bind(make.bind()), workflow_id="a") == 2**14
    assert list((tmp_path / "by-object").rglob("*.value"))
    assert workflow.list_all() == [("a", "SUCCESSFUL")]


# ---- the cluster dies


@pytest.mark.slow
def test_a_new_cluster_on_the_same_storage_goes_on(fresh_manager, tmp_path, gate, ledger):
    storage = tmp_path / "storage"
    fresh_manager()
    with drivers.cluster(
        CHAIN
        + """
@ray.remote
def note(name, refs):
    ledger.write(name)
    return ray.get(refs)

@ray.remote
def wait(inputs):
    ledger.write("wait")
    gate.wait()
    return inputs

first = workflow.run_async(count.bind(0), workflow_id="chain", metadata={"a": 1})
second = workflow.run_async(wait.bind(note.bind("note", [ray.put("kept")])), workflow_id="fan")
print(workflow.get_status("chain"), ray.get([first, second]))
""",
        tmp_path,
        storage,
    ) as process:
        ledger.wait_for(3)
        ledger.wait_for("wait")
        fresh_manager(storage=storage)
        # Alive, and owned by the other cluster: nothing here runs it or touches it.
        assert workflow.get_status("chain") is workflow.RUNNING
        assert workflow.resume_all() == []
        with pytest.raises(workflow.WorkflowStillActiveError):
            workflow.delete("chain")
        attached = workflow.resume_async("chain")
        assert ray.wait([attached], timeout=1)[0] == []
        process.kill()
        process.wait()
    wait_until(lambda: workflow.get_status("fan") is workflow.RESUMABLE)
    assert workflow.get_metadata("fan")["status"] == "RESUMABLE"
    gate.open()
    resumed = dict(workflow.resume_all())  # perhaps the chain was already
    assert ray.get(resumed["fan"]) == ["kept"]
    # Who waited for the other cluster's run has it taken over.
    assert ray.get(attached, timeout=60) == 6
    assert workflow.get_output("chain") == 6
    assert ledger.count("note") == 1
    assert ledger.count(0) == ledger.count(1) == ledger.count(2) == 1
    assert workflow.get_metadata("chain")["user_metadata"] == {"a": 1}


def test_the_session_left_no_process_of_a_killed_driver():
    """A check of these tests: what they start, they end."""
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True)
    mine = [line for line in listed.stdout.splitlines() if line.split()[0] == str(os.getpid())]
    assert not [line for line in mine if "driver0.py" in line and "defunct" not in line]
