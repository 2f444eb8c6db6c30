"""Workflow options and Ray options: every way to write them, and what they do."""

import os
import time

import pytest
import ray
from witness import is_alive, wait_until

from airflow_provider_rayworkflow import workflow


def described(dag, new_id, task_id):
    """The metadata of a task of a workflow that has run."""
    workflow.run(dag, workflow_id=new_id)
    return workflow.get_metadata(new_id, task_id)


# ---- call forms


def test_the_decorator_above_ray_remote(manager, new_id):
    @workflow.options(task_id="named", metadata={"a": 1})
    @ray.remote
    def task():
        return 1

    assert described(task.bind(), new_id, "named")["user_metadata"] == {"a": 1}


def test_the_decorator_above_ray_remote_with_options(manager, new_id):
    @workflow.options(task_id="named")
    @ray.remote(num_cpus=2, max_retries=7)
    def task():
        return 1

    options = described(task.bind(), new_id, "named")["task_options"]
    assert options["max_retries"] == 7
    assert options["ray_options"]["num_cpus"] == 2


def test_options_of_a_remote_function(manager, new_id):
    @ray.remote
    def task():
        return 1

    dag = task.options(**workflow.options(task_id="named", metadata={"a": 1})).bind()
    assert described(dag, new_id, "named")["user_metadata"] == {"a": 1}
    # The function itself is as before.
    workflow.run(task.bind(), workflow_id=f"{new_id}-2")
    with pytest.raises(ValueError, match="No such task_id"):
        workflow.get_metadata(f"{new_id}-2", "named")


def test_options_of_the_remote_decorator(manager, new_id):
    @ray.remote(**workflow.options(task_id="named", checkpoint=False), max_retries=5)
    def task():
        return 1

    options = described(task.bind(), new_id, "named")["task_options"]
    assert options["checkpoint"] is False
    assert options["max_retries"] == 5


def test_the_decorator_returns_the_same_function(manager):
    @ray.remote
    def task():
        return 1

    assert workflow.options(task_id="named")(task) is task


def test_options_merge_key_by_key(manager, new_id):
    @workflow.options(task_id="first", checkpoint=False, metadata={"a": 1, "b": 2})
    @ray.remote(max_retries=9)
    def task():
        return 1

    later = task.options(**workflow.options(task_id="second", metadata={"c": 3}))
    found = described(later.bind(), new_id, "second")
    assert found["user_metadata"] == {"c": 3}  # as a whole
    assert found["task_options"]["checkpoint"] is False
    assert found["task_options"]["max_retries"] == 9


def test_decorators_merge_key_by_key(manager, new_id):
    @workflow.options(task_id="above")
    @workflow.options(task_id="below", metadata={"a": 1})
    @ray.remote
    def task():
        return 1

    assert described(task.bind(), new_id, "above")["user_metadata"] == {"a": 1}


def test_ray_options_can_be_given_after_workflow_options(manager, new_id):
    @workflow.options(task_id="named")
    @ray.remote
    def task():
        return 1

    options = described(task.options(num_cpus=2, name="shown").bind(), new_id, "named")[
        "task_options"
    ]["ray_options"]
    assert options["num_cpus"] == 2
    assert options["name"] == "shown"
    both = task.options(num_cpus=1, **workflow.options(checkpoint=False))
    options = described(both.bind(), f"{new_id}-2", "named")["task_options"]
    assert options["checkpoint"] is False
    assert options["ray_options"]["num_cpus"] == 1


def test_a_function_with_workflow_options_still_runs_as_a_plain_ray_task(manager):
    @workflow.options(task_id="named")
    @ray.remote
    def task(value):
        return value

    assert ray.get(task.remote(1)) == 1
    assert ray.get(task.options(num_cpus=0).remote(2)) == 2
    assert workflow.continuation(task.bind(3)) == 3


def test_a_process_that_never_imported_us_can_use_such_a_function(manager, new_id):
    @workflow.options(task_id="named", metadata={"a": 1})
    @ray.remote
    def task(value):
        return value

    @ray.remote(runtime_env={"env_vars": {"A_WORKER_OF_ITS_OWN": new_id}})
    def plain():
        return ray.get(task.options(num_cpus=0).remote(2))

    assert ray.get(plain.remote()) == 2


def test_options_work_inside_of_tasks_and_their_continuations(manager, new_id):
    @workflow.options(task_id="step")
    @ray.remote
    def step(depth):
        if depth:
            named = step.options(num_cpus=0.5, **workflow.options(task_id=f"at{depth}"))
            return workflow.continuation(named.bind(depth - 1))
        return "end"

    assert workflow.run(step.bind(2), workflow_id=new_id) == "end"
    assert workflow.get_output(new_id, task_id="at2") == "end"
    ray_options = workflow.get_metadata(new_id, "at1")["task_options"]["ray_options"]
    assert ray_options["num_cpus"] == 0.5


def test_options_work_in_plain_ray_tasks_that_start_workflows(manager, new_id):
    @ray.remote(num_cpus=0)
    def start():
        @ray.remote
        def task():
            return 1

        dag = task.options(**workflow.options(task_id="named")).bind()
        return workflow.run(dag, workflow_id=new_id)

    assert ray.get(start.remote()) == 1
    assert workflow.get_output(new_id, task_id="named") == 1


def test_one_function_in_two_workflows_keeps_its_own_options(manager, new_id):
    @ray.remote
    def task():
        return 1

    first = task.options(**workflow.options(task_id="first"))
    second = task.options(**workflow.options(task_id="second"))
    workflow.run(first.bind(), workflow_id=f"{new_id}-1")
    workflow.run(second.bind(), workflow_id=f"{new_id}-2")
    assert workflow.get_output(f"{new_id}-1", task_id="first") == 1
    assert workflow.get_output(f"{new_id}-2", task_id="second") == 1


# ---- Ray's options reach Ray


def test_num_cpus_are_held_while_the_task_runs(manager, gate, ledger):
    @ray.remote(num_cpus=3)
    def hold():
        ledger.write()
        gate.wait()

    @ray.remote(num_cpus=2)
    def need_two():
        return 1

    started = workflow.run_async(hold.bind())
    ledger.wait_for()
    other = need_two.remote()
    assert ray.wait([other], timeout=1) == ([], [other])
    gate.open()
    assert ray.get(other) == 1
    ray.get(started)


def test_gpus_and_resources_of_ones_own_reach_ray(manager):
    @ray.remote(num_cpus=0.5, num_gpus=0.5, resources={"special": 2})
    def held():
        return ray.get_runtime_context().get_assigned_resources(), ray.get_gpu_ids()

    resources, gpus = workflow.run(held.bind())
    assert resources == {"CPU": 0.5, "GPU": 0.5, "special": 2.0}
    assert gpus == [0]


def test_tasks_run_in_parallel(manager, ledger, tmp_path):
    @ray.remote
    def meet(number):
        ledger.write(number)
        for other in range(3):
            ledger.wait_for(other)
        return number

    @ray.remote
    def join(*values):
        return sum(values)

    assert workflow.run(join.bind(*(meet.bind(number) for number in range(3)))) == 3


def test_runtime_env_variables_are_in_the_task_and_not_in_its_metadata(manager, new_id):
    @ray.remote(runtime_env={"env_vars": {"TRIP_TOKEN": "secret-1"}})
    def read():
        return os.environ["TRIP_TOKEN"]

    dag = read.options(**workflow.options(task_id="read")).bind()
    assert workflow.run(dag, workflow_id=new_id) == "secret-1"
    metadata = workflow.get_metadata(new_id, "read")
    assert "secret-1" not in str(metadata)
    assert "TRIP_TOKEN" in str(metadata)


def test_a_folder_that_the_cluster_does_not_have_any_more_is_asked_for(manager, new_id):
    @ray.remote(runtime_env={"working_dir": "gcs://_ray_pkg_0123.zip"}, max_retries=0)
    def task():
        return 1

    with pytest.raises(
        workflow.WorkflowExecutionError,
        match=r"uploaded .* as gcs://_ray_pkg_0123.zip is not on this cluster any more. Resume with",
    ):
        workflow.run(task.bind(), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE


@pytest.mark.parametrize("strategy", ["SPREAD", "DEFAULT"])
def test_a_scheduling_strategy_is_taken(manager, strategy):
    @ray.remote(scheduling_strategy=strategy)
    def task():
        return 1

    assert workflow.run(task.bind()) == 1


def test_a_strategy_that_is_an_object_is_taken(manager):
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)

    @ray.remote(scheduling_strategy=here)
    def task():
        return 1

    assert workflow.run(task.bind()) == 1


def test_the_options_of_a_task_are_there_again_after_a_resume(manager, new_id, gate):
    @ray.remote(runtime_env={"env_vars": {"TRIP_TOKEN": "kept"}})
    def read():
        if not gate.is_open:
            raise ValueError("not yet")
        return os.environ["TRIP_TOKEN"]

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(read.bind(), workflow_id=new_id)
    gate.open()
    assert workflow.resume(new_id) == "kept"


def test_a_task_that_no_node_can_run_waits(manager, new_id):
    @ray.remote(resources={"never": 1})
    def task():
        return 1

    ref = workflow.run_async(task.bind(), workflow_id=new_id)
    assert ray.wait([ref], timeout=1) == ([], [ref])
    assert workflow.get_status(new_id) is workflow.RUNNING
    workflow.cancel(new_id)


@pytest.mark.parametrize("num_returns", [None, 1])
def test_one_return_may_be_said(manager, num_returns):
    @ray.remote(num_returns=num_returns)
    def task():
        return 5

    assert workflow.run(task.bind()) == 5


# ---- retry and timeout_s


def test_retry_says_how_exceptions_are_retried(manager, ledger):
    @workflow.options(retry=workflow.Retry(attempts=3, wait_initial=0.01))
    @ray.remote(max_retries=0)
    def unsteady(failures):
        ledger.write()
        if ledger.count() <= failures:
            raise ValueError("unsteady")
        return "value"

    assert workflow.run(unsteady.bind(2)) == "value"
    assert ledger.count() == 3
    ledger.path.unlink()
    with pytest.raises(workflow.WorkflowExecutionError, match="unsteady"):
        workflow.run(unsteady.bind(3))
    assert ledger.count() == 3


def test_retry_waits_longer_each_time(manager, ledger):
    @workflow.options(retry=workflow.Retry(attempts=3, wait_initial=0.4, wait_factor=3))
    @ray.remote
    def fail():
        ledger.write(time.time())
        raise ValueError("always")

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail.bind())
    first, second, third = map(float, ledger.lines())
    assert second - first >= 0.2  # half of it at least
    assert third - second >= 0.6


def test_retry_names_the_exceptions(manager, ledger):
    @workflow.options(retry=workflow.Retry(attempts=5, wait_initial=0, on=(KeyError,)))
    @ray.remote
    def fail(error):
        ledger.write(type(error).__name__)
        raise error

    for error in (KeyError("k"), ValueError("v")):
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.run(fail.bind(error))
    assert ledger.count("KeyError") == 5
    assert ledger.count("ValueError") == 1


def test_retry_does_not_pay_for_crashes(manager, ledger, crash):
    @workflow.options(retry=workflow.Retry(attempts=2, wait_initial=0))
    @ray.remote(max_retries=2)
    def task():
        ledger.write()
        crash.pass_by()
        if ledger.count() == 3:
            raise ValueError("once")
        return "value"

    crash.arm(times=2)
    assert workflow.run(task.bind()) == "value"
    assert ledger.count() == 4


def test_a_task_that_takes_longer_than_its_limit_fails(manager, new_id, gate):
    @workflow.options(task_id="slow", timeout_s=0.5)
    @ray.remote(max_retries=0)
    def slow():
        gate.wait()

    with pytest.raises(workflow.WorkflowExecutionError, match=r"slow.*0\.5") as caught:
        workflow.run(slow.bind(), workflow_id=new_id)
    assert type(caught.value.__cause__).__name__ == "WorkflowTaskTimeoutError"
    assert workflow.get_status(new_id) is workflow.FAILED
    gate.open()
    assert workflow.resume(new_id) is None


def test_a_limit_is_for_each_attempt_and_can_be_retried_and_caught(manager, ledger, gate):
    @workflow.options(
        timeout_s=0.3, retry=workflow.Retry(attempts=2, wait_initial=0), catch_exceptions=True
    )
    @ray.remote
    def slow():
        ledger.write()
        gate.wait()

    value, error = workflow.run(slow.bind())
    assert value is None
    assert type(error).__name__ == "WorkflowTaskTimeoutError"
    assert ledger.count() == 2


def catch_everything(gate):
    while not gate.is_open:
        try:
            gate.wait()
        except BaseException:
            continue


def hold_the_interpreter(gate):
    sum(range(10**15))  # no thread and no handler of a signal gets a turn meanwhile


@pytest.mark.parametrize("go_on", [catch_everything, hold_the_interpreter])
def test_a_task_that_can_not_be_interrupted_is_killed_with_its_process(
    manager, new_id, gate, ledger, go_on
):
    @workflow.options(task_id="stubborn", timeout_s=0.5)
    @ray.remote(max_retries=0)
    def stubborn():
        ledger.write(os.getpid())
        go_on(gate)

    with pytest.raises(workflow.WorkflowExecutionError, match="stubborn") as caught:
        workflow.run(stubborn.bind(), workflow_id=new_id)
    assert type(caught.value.__cause__).__name__ == "WorkflowTaskTimeoutError"
    assert workflow.get_status(new_id) is workflow.FAILED
    [pid] = ledger.lines()
    wait_until(lambda: not is_alive(int(pid)))


def test_a_task_within_its_limit_is_left_alone(manager):
    @workflow.options(timeout_s=60)
    @ray.remote
    def quick():
        return 1

    assert workflow.run(quick.bind()) == 1
