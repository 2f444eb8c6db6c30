"""get_metadata: what is known of workflows and tasks."""

import time

import pytest
import ray
from witness import wait_until

from airflow_provider_rayworkflow import workflow


@workflow.options(task_id="upstream", metadata={"of": "upstream"})
@ray.remote
def upstream():
    time.sleep(0.05)
    return 1


@workflow.options(task_id="downstream")
@ray.remote(max_retries=5, num_cpus=0.5)
def downstream(*values):
    time.sleep(0.05)
    return sum(values)


@ray.remote
def pass_gate(gate):
    gate.wait()


def test_a_successful_workflow_has_its_metadata_and_times(manager, new_id):
    before = time.time()
    workflow.run(
        downstream.bind(upstream.bind()), workflow_id=new_id, metadata={"who": ["a", {"b": 1.5}]}
    )
    metadata = workflow.get_metadata(new_id)
    assert set(metadata) == {"status", "user_metadata", "stats"}
    assert metadata["status"] == "SUCCESSFUL"
    assert metadata["user_metadata"] == {"who": ["a", {"b": 1.5}]}
    stats = metadata["stats"]
    assert before <= stats["start_time"] < stats["end_time"] <= time.time()


def test_metadata_is_empty_where_none_was_given(manager, new_id):
    workflow.run(downstream.bind(1), workflow_id=new_id)
    assert workflow.get_metadata(new_id)["user_metadata"] == {}
    assert workflow.get_metadata(new_id, "downstream")["user_metadata"] == {}


def test_a_task_has_its_options_inputs_and_times(manager, new_id):
    workflow.run(downstream.bind(upstream.bind(), 2), workflow_id=new_id)
    of_workflow = workflow.get_metadata(new_id)["stats"]
    first, second = (workflow.get_metadata(new_id, name) for name in ("upstream", "downstream"))
    assert first["task_id"] == "upstream"
    assert first["user_metadata"] == {"of": "upstream"}
    assert first["workflow_refs"] == []
    assert second["workflow_refs"] == ["upstream"]
    options = second["task_options"]
    assert options["task_type"] == "FUNCTION"
    assert options["max_retries"] == 5
    assert options["retry_exceptions"] is False
    assert options["catch_exceptions"] is False
    assert options["checkpoint"] is True
    assert options["ray_options"] == {"num_cpus": 0.5}
    times = [
        of_workflow["start_time"],
        *(task["stats"][name] for task in (first, second) for name in ("start_time", "end_time")),
        of_workflow["end_time"],
    ]
    assert times == sorted(times)
    assert first["stats"]["end_time"] - first["stats"]["start_time"] >= 0.05


def test_a_running_workflow_has_no_end_time(manager, new_id, gate):
    ref = workflow.run_async(
        downstream.bind(pass_gate.options(**workflow.options(task_id="waits")).bind(gate), 1),
        workflow_id=new_id,
    )
    metadata = workflow.get_metadata(new_id)
    assert metadata["status"] == "RUNNING"
    assert set(metadata["stats"]) == {"start_time"}
    assert workflow.get_metadata(new_id, "downstream")["stats"] == {}  # at once, not waiting
    assert "end_time" not in workflow.get_metadata(new_id, "waits")["stats"]
    workflow.cancel(new_id)
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(ref)


def test_a_canceled_workflow_has_no_end_time(manager, new_id, gate):
    workflow.run_async(pass_gate.bind(gate), workflow_id=new_id)
    workflow.cancel(new_id)
    metadata = workflow.get_metadata(new_id)
    assert metadata["status"] == "CANCELED"
    assert "end_time" not in metadata["stats"]


def test_a_failed_workflow_says_why_as_text(manager, new_id):
    @workflow.options(task_id="broken")
    @ray.remote
    def broken():
        raise ValueError("broken for good")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(broken.bind(), workflow_id=new_id)
    metadata = workflow.get_metadata(new_id)
    assert metadata["status"] == "FAILED"
    assert metadata["stats"]["end_time"] >= metadata["stats"]["start_time"]
    failure = metadata["failure"]
    assert failure["task_id"] == "broken"
    assert failure["type"] == "ValueError"
    assert failure["message"] == "broken for good"
    assert "broken for good" in failure["traceback"]


def test_a_resume_renews_the_times_and_keeps_the_metadata(manager, new_id, gate):
    @ray.remote
    def fail_at_first():
        if not gate.is_open:
            raise ValueError("not yet")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_at_first.bind(), workflow_id=new_id, metadata={"a": 1})
    first = workflow.get_metadata(new_id)
    gate.open()
    workflow.resume(new_id)
    second = workflow.get_metadata(new_id)
    assert second["status"] == "SUCCESSFUL"
    assert second["user_metadata"] == {"a": 1}
    assert "failure" not in second
    assert second["stats"]["start_time"] >= first["stats"]["end_time"]
    assert second["stats"]["end_time"] > first["stats"]["end_time"]


def test_the_same_id_again_does_not_overwrite_the_metadata(manager, new_id):
    workflow.run(downstream.bind(1), workflow_id=new_id, metadata={"run": 1})
    workflow.run(downstream.bind(1), workflow_id=new_id, metadata={"run": 2})
    assert workflow.get_metadata(new_id)["user_metadata"] == {"run": 1}


def test_tasks_of_continuations_have_metadata_too(manager, new_id):
    @workflow.options(task_id="outer", metadata={"level": "outer"})
    @ray.remote
    def outer():
        time.sleep(0.05)
        return workflow.continuation(downstream.bind(upstream.bind(), 2))

    workflow.run(outer.bind(), workflow_id=new_id)
    outside, inside = (workflow.get_metadata(new_id, name) for name in ("outer", "downstream"))
    assert outside["user_metadata"] == {"level": "outer"}
    assert inside["workflow_refs"] == ["upstream"]
    assert inside["stats"]["start_time"] >= outside["stats"]["end_time"]


def test_the_metadata_of_a_task_is_there_while_it_waits(manager, new_id, gate):
    workflow.run_async(downstream.bind(pass_gate.bind(gate)), workflow_id=new_id)
    assert workflow.get_metadata(new_id, "downstream")["task_options"]["max_retries"] == 5
    workflow.cancel(new_id)


def test_metadata_of_what_does_not_exist_raises(manager, new_id):
    with pytest.raises(ValueError, match=f"^No such workflow_id '{new_id}'$"):
        workflow.get_metadata(new_id)
    with pytest.raises(ValueError, match=f"^No such workflow_id '{new_id}'$"):
        workflow.get_metadata(new_id, "task")
    workflow.run(downstream.bind(1), workflow_id=new_id)
    with pytest.raises(ValueError, match=f"^No such task_id 'task' in workflow '{new_id}'$"):
        workflow.get_metadata(new_id, "task")


def test_metadata_can_be_read_of_every_status(manager, new_id, gate):
    ref = workflow.run_async(pass_gate.bind(gate), workflow_id=new_id)
    assert workflow.get_metadata(new_id)["status"] == workflow.get_status(new_id) == "RUNNING"
    workflow.suspend(new_id)
    assert workflow.get_metadata(new_id)["status"] == workflow.get_status(new_id) == "RESUMABLE"
    with pytest.raises(workflow.WorkflowSuspendedError):
        ray.get(ref)
    gate.open()
    workflow.resume(new_id)
    wait_until(lambda: workflow.get_metadata(new_id)["status"] == "SUCCESSFUL")
