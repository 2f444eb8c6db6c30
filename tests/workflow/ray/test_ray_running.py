"""run, run_async, resume, get_output and get_status, as a program sees them."""

import threading
import time
import uuid

import pytest
import ray
from witness import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import (
    FailedOutputError,
    WorkflowAlreadyExistsError,
)


@ray.remote
def add(a, b):
    return a + b


@ray.remote
def write(ledger, value=None):
    ledger.write()
    return value


@ray.remote
def pass_gate(gate, ledger, value):
    ledger.write()
    gate.wait()
    return value


@ray.remote
def pass_on(value):
    return value


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        *("init", "run", "run_async", "resume", "resume_async", "resume_all", "cancel"),
        *("list_all", "delete", "get_output", "get_output_async", "get_status", "get_metadata"),
        *("sleep", "wait_for_event", "options", "continuation", "EventListener"),
        *("WorkflowError", "WorkflowExecutionError", "WorkflowCancellationError"),
    ],
)
def test_every_name_that_ray_workflow_exported_is_exported(name):
    assert name in workflow.__all__
    assert hasattr(workflow, name)


@pytest.mark.parametrize("name", ["exceptions", "event_listener", "common", "api"])
def test_every_module_of_ray_workflow_is_an_attribute(name):
    assert hasattr(workflow, name)


def test_statuses_are_constants_and_strings():
    names = {"NONE", "RUNNING", "CANCELED", "SUCCESSFUL", "FAILED", "RESUMABLE", "PENDING"}
    assert {getattr(workflow, name) for name in names} == set(workflow.WorkflowStatus) == names
    assert workflow.WorkflowStatus.non_terminating_status() == ("RUNNING", "PENDING")


# ---- outputs


def test_run_returns_the_value_of_the_output_task(manager):
    assert workflow.run(add.bind(add.bind(1, 2), 3)) == 6


def test_a_fork_that_joins_again_gives_the_value_of_plain_python(manager):
    source = add.bind(1, 1)
    left, right = add.bind(source, 10), add.bind(source, 20)
    assert workflow.run(add.bind(left, right)) == 34


def test_run_async_returns_before_the_task_has_ended(manager, gate, ledger):
    ref = workflow.run_async(pass_gate.bind(gate, ledger, 7))
    assert isinstance(ref, ray.ObjectRef)
    ledger.wait_for()
    assert ray.wait([ref], timeout=0.5) == ([], [ref])
    gate.open()
    assert ray.get(ref) == 7


def test_the_reference_of_an_output_can_be_passed_to_other_tasks(manager):
    ref = workflow.run_async(add.bind(1, 2))
    assert ray.get(add.remote(ref, 10)) == 13


def test_run_async_of_many_workflows_can_be_asked_for_at_once(manager, new_id):
    for number in range(20):
        workflow.run_async(add.bind(number, 1), workflow_id=f"{new_id}.{number}")
        ref = workflow.get_output_async(f"{new_id}.{number}")
        assert ray.get(ref) == number + 1


def test_get_output_returns_the_stored_output_of_a_workflow_that_ended(manager, new_id):
    workflow.run(add.bind(1, 2), workflow_id=new_id)
    assert workflow.get_output(new_id) == 3
    assert ray.get(workflow.get_output_async(new_id)) == 3


def test_get_output_waits_while_the_workflow_is_running(manager, new_id, gate, ledger):
    workflow.run_async(pass_gate.bind(gate, ledger, "late"), workflow_id=new_id)
    ref = workflow.get_output_async(new_id)
    assert ray.wait([ref], timeout=0.5) == ([], [ref])
    gate.open()
    assert workflow.get_output(new_id) == "late"
    assert ray.get(ref) == "late"


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1.5, float("inf"), 2**70, range(3)),
        *("", "text ü \U0001f600", "\ud800", b"\x00\xff"),
        *((1, (2,)), [1, [2]], {1: "a"}, {"a": None}, {1, 2}),
    ],
    ids=ascii,
)
def test_a_value_comes_back_as_it_was(manager, value):
    returned = workflow.run(pass_on.bind(pass_on.bind(value)))
    assert returned == value
    assert type(returned) is type(value)


# ---- statuses


def test_a_workflow_is_running_and_then_successful(manager, new_id, gate, ledger):
    ref = workflow.run_async(pass_gate.bind(gate, ledger, 1), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RUNNING
    gate.open()
    ray.get(ref)
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL
    assert workflow.get_status(new_id) == "SUCCESSFUL"


def test_the_status_of_a_workflow_that_does_not_exist_raises(manager, new_id):
    with pytest.raises(workflow.WorkflowNotFoundError, match=new_id) as caught:
        workflow.get_status(new_id)
    assert caught.value.workflow_id == new_id


# ---- ids


def test_a_generated_id_is_a_uuid_and_the_time(manager, fresh_manager):
    fresh_manager()
    workflow.run(add.bind(1, 2))
    [(generated, status)] = workflow.list_all()
    unique, _, seconds = generated.partition(".")
    assert uuid.UUID(unique).version == 4
    assert abs(float(seconds) - time.time()) < 60
    assert status is workflow.SUCCESSFUL


@pytest.mark.parametrize(
    "odd", ["a/b", "ümläut", "UPPER", "with space", "a%2fb", ".hidden", "x" * 255, "日本" * 30, "~"]
)
def test_an_odd_id_works_like_any_other(manager, odd):
    workflow.run(add.bind(1, 2), workflow_id=odd)
    assert workflow.get_output(odd) == 3
    assert (odd, workflow.SUCCESSFUL) in workflow.list_all()
    workflow.delete(odd)
    assert odd not in dict(workflow.list_all())


def test_ids_that_differ_only_in_case_are_two_workflows(manager, new_id):
    assert workflow.run(pass_on.bind(1), workflow_id=f"{new_id}-a") == 1
    assert workflow.run(pass_on.bind(2), workflow_id=f"{new_id}-A") == 2
    assert workflow.get_output(f"{new_id}-a") == 1


# ---- the same id again


def test_the_same_id_again_returns_the_stored_output_and_runs_nothing(manager, new_id, ledger):
    assert workflow.run(write.bind(ledger, 1), workflow_id=new_id) == 1
    assert workflow.run(write.bind(ledger, 1), workflow_id=new_id) == 1
    assert workflow.resume(new_id) == 1
    assert ray.get(workflow.resume_async(new_id)) == 1
    assert ledger.count() == 1


def test_a_running_id_is_attached_to(manager, new_id, gate, ledger):
    first = workflow.run_async(pass_gate.bind(gate, ledger, 5), workflow_id=new_id)
    ledger.wait_for()
    second = workflow.run_async(pass_gate.bind(gate, ledger, 5), workflow_id=new_id)
    third = workflow.resume_async(new_id)
    gate.open()
    assert ray.get([first, second, third]) == [5, 5, 5]
    assert ledger.count() == 1


def test_on_existing_fail_refuses_a_running_and_an_ended_id(manager, new_id, gate, ledger):
    ref = workflow.run_async(
        pass_gate.bind(gate, ledger, 5), workflow_id=new_id, on_existing="fail"
    )
    with pytest.raises(WorkflowAlreadyExistsError, match="RUNNING"):
        workflow.run(pass_on.bind(1), workflow_id=new_id, on_existing="fail")
    gate.open()
    assert ray.get(ref) == 5
    with pytest.raises(RuntimeError, match="SUCCESSFUL"):  # the old library's type
        workflow.run(pass_on.bind(1), workflow_id=new_id, on_existing="fail")
    assert workflow.get_output(new_id) == 5


def test_on_existing_restart_runs_everything_again(manager, new_id, ledger):
    assert workflow.run(write.bind(ledger, 1), workflow_id=new_id, metadata={"run": 1}) == 1
    again = workflow.run(
        write.bind(ledger, 2), workflow_id=new_id, metadata={"run": 2}, on_existing="restart"
    )
    assert again == workflow.get_output(new_id) == 2
    assert ledger.count() == 2
    assert workflow.get_metadata(new_id)["user_metadata"] == {"run": 2}


def test_on_existing_restart_of_a_running_workflow_is_refused(manager, new_id, gate, ledger):
    ref = workflow.run_async(pass_gate.bind(gate, ledger, 5), workflow_id=new_id)
    with pytest.raises(workflow.WorkflowStillActiveError):
        workflow.run(pass_on.bind(1), workflow_id=new_id, on_existing="restart")
    gate.open()
    assert ray.get(ref) == 5


@pytest.mark.invariant(5)
def test_callers_that_submit_one_id_at_once_get_one_execution(manager, new_id, gate, ledger):
    results = []

    def submit():
        results.append(workflow.run(pass_gate.bind(gate, ledger, 5), workflow_id=new_id))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    ledger.wait_for()
    gate.open()
    for thread in threads:
        thread.join()
    assert results == [5] * 8
    assert ledger.count() == 1


@ray.remote
def fail_at_first(gate, value):
    if not gate.is_open:
        raise ValueError("not yet")
    return value + 1


def test_a_failed_workflow_runs_again_from_the_task_that_failed(manager, new_id, gate, ledger):
    dag = fail_at_first.bind(gate, write.bind(ledger, 1))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.FAILED
    gate.open()
    assert workflow.get_status(new_id) is workflow.FAILED
    with pytest.raises(FailedOutputError, match="not yet"):
        workflow.get_output(new_id)
    assert workflow.run(dag, workflow_id=new_id) == 2
    assert ledger.count() == 1


def test_a_failed_workflow_goes_on_with_the_code_that_is_given_now(manager, new_id, ledger):
    def graph(mend):
        @workflow.options(task_id="work")
        @ray.remote
        def work(value):
            return mend(value)

        return work.bind(write.bind(ledger, 1))

    def broken(value):
        raise ValueError("broken")

    with pytest.raises(workflow.WorkflowExecutionError, match="broken"):
        workflow.run(graph(broken), workflow_id=new_id)
    with pytest.raises(workflow.WorkflowExecutionError, match="broken"):
        workflow.resume(new_id)  # what is stored
    assert workflow.run(graph(lambda value: value + 41), workflow_id=new_id) == 42
    assert ledger.count() == 1


def test_resume_of_a_failed_workflow_needs_no_graph(manager, new_id, gate, ledger):
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_at_first.bind(gate, write.bind(ledger, 1)), workflow_id=new_id)
    gate.open()
    assert ray.get(workflow.resume_async(new_id)) == 2
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL
    assert ledger.count() == 1


def test_resume_of_what_does_not_exist_raises_and_leaves_no_trace(fresh_manager):
    fresh_manager()
    for resume in (workflow.resume, workflow.resume_async):
        with pytest.raises(workflow.WorkflowNotResumableError, match="missing"):
            resume("missing")
    assert workflow.list_all() == []
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status("missing")


# ---- from where


def test_a_workflow_runs_from_another_thread(manager):
    values = []
    thread = threading.Thread(target=lambda: values.append(workflow.run(add.bind(1, 2))))
    thread.start()
    thread.join(timeout=60)
    assert values == [3]


def test_workflows_start_inside_of_tasks_and_actors(manager, new_id):
    @ray.remote(num_cpus=0)
    def from_task():
        return workflow.run(add.bind(1, 2), workflow_id=f"{new_id}-task")

    @ray.remote(num_cpus=0)
    class Starter:
        def start(self):
            return workflow.run(add.bind(3, 4), workflow_id=f"{new_id}-actor")

    starter = Starter.remote()
    assert ray.get([from_task.remote(), starter.start.remote()]) == [3, 7]
    assert workflow.get_output(f"{new_id}-task") == 3
    ray.kill(starter)
    assert workflow.get_output(f"{new_id}-actor") == 7


def test_a_workflow_task_may_run_another_workflow(manager, new_id):
    @ray.remote(num_cpus=0)
    def outer():
        return workflow.run(add.bind(1, 2), workflow_id=f"{new_id}-inner") * 10

    assert workflow.run(outer.bind(), workflow_id=new_id) == 30
    assert workflow.get_status(f"{new_id}-inner") is workflow.SUCCESSFUL


# ---- outputs of tasks


@workflow.options(task_id="inner")
@ray.remote
def inner(value):
    return value + 1


@workflow.options(task_id="outer")
@ray.remote
def outer(value):
    return value * 10


def test_the_output_of_a_task_is_found_by_its_id(manager, new_id):
    assert workflow.run(outer.bind(inner.bind(1)), workflow_id=new_id) == 20
    assert workflow.get_output(new_id, task_id="inner") == 2
    assert workflow.get_output(new_id, task_id="outer") == 20
    assert ray.get(workflow.get_output_async(new_id, task_id="inner")) == 2


def test_the_outputs_of_tasks_are_there_as_soon_as_they_have_ended(manager, new_id, gate, ledger):
    last = pass_gate.options(**workflow.options(task_id="last")).bind(
        gate, ledger, outer.bind(inner.bind(1))
    )
    workflow.run_async(last, workflow_id=new_id)
    assert workflow.get_output(new_id, task_id="inner") == 2
    waiting = workflow.get_output_async(new_id, task_id="last")
    assert ray.wait([waiting], timeout=0.5) == ([], [waiting])
    gate.open()
    assert ray.get(waiting) == 20


def test_the_output_of_a_task_can_be_asked_for_before_the_task_exists(manager, new_id, gate):
    @ray.remote
    def count_down(number):
        gate.wait()
        if number:
            step = count_down.options(**workflow.options(task_id=f"step{number - 1}"))
            return workflow.continuation(step.bind(number - 1))
        return "end"

    workflow.run_async(count_down.bind(5), workflow_id=new_id)
    refs = [workflow.get_output_async(new_id, task_id=f"step{number}") for number in range(5)]
    assert ray.wait(refs, timeout=0.5)[0] == []
    gate.open()
    assert ray.get(refs) == ["end"] * 5


def test_asking_for_a_task_that_never_comes_ends_with_the_workflow(manager, new_id, gate, ledger):
    workflow.run_async(pass_gate.bind(gate, ledger, 1), workflow_id=new_id)
    unknown = workflow.get_output_async(new_id, task_id="no such task")
    output = workflow.get_output_async(new_id)
    assert ray.wait([unknown], timeout=0.5) == ([], [unknown])
    gate.open()
    with pytest.raises(ValueError, match="no such task"):
        ray.get(unknown)
    assert ray.get(output) == 1


def test_after_a_failure_ended_tasks_have_outputs_and_the_others_raise(manager, new_id):
    @workflow.options(task_id="broken")
    @ray.remote
    def broken(value):
        raise ZeroDivisionError("by zero")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(broken.bind(inner.bind(1)), workflow_id=new_id)
    assert workflow.get_output(new_id, task_id="inner") == 2
    with pytest.raises(ValueError, match="by zero"):
        workflow.get_output(new_id, task_id="broken")


def test_the_output_of_an_unknown_workflow_raises_when_it_is_got(manager, new_id):
    ref = workflow.get_output_async(new_id)  # not here
    with pytest.raises(ValueError, match=f"No such workflow_id '{new_id}'"):
        ray.get(ref)
    with pytest.raises(ValueError, match=f"No such workflow_id '{new_id}'"):
        workflow.get_output(new_id, task_id="a")


def test_an_ended_workflow_leaves_nothing_running(manager, new_id, ledger):
    workflow.run(write.bind(ledger, 1), workflow_id=new_id)
    wait_until(lambda: ray.available_resources().get("CPU") == 4.0)
