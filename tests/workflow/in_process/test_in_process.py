"""The public test helper: workflows in this process behave as on a cluster."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import effects
import numpy as np
import pytest
import ray
from effects import calls
from noting_store import NotingStore
from ray.exceptions import GetTimeoutError, RayActorError
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    CanceledOutputError,
    DataSaveError,
    FailedOutputError,
    IllegalTransitionError,
    SuspendedOutputError,
    WorkflowAlreadyExistsError,
    WorkflowTaskTimeoutError,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows, MemoryStore


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with effects.fresh():
        yield
    assert not ray.is_initialized()


@ray.remote
def add(a, b=0):
    calls.append("add")
    return a + b


@ray.remote
def fail_until(number: int, what: str = "not yet"):
    calls.append("fail")
    if len(calls) < number:
        raise OSError(what)
    return len(calls)


@ray.remote
def wait_at_gate(value):
    calls.append("waits")
    effects.gate.wait()
    return value


@ray.remote
def large(size: int = 100_000):
    calls.append("large")
    return np.zeros(size, dtype=np.uint8)


def tasks_of(text: str) -> int:
    return calls.count(text)


# ---- outputs


def test_a_workflow_returns_its_output(workflows: InProcessWorkflows):
    assert workflows.run(add.bind(add.bind(1, 2), b=add.bind(3)), workflow_id="w") == 6
    assert workflows.get_status("w") == "SUCCESSFUL"
    assert workflows.get_output("w") == 6
    assert len(calls) == 3


def test_a_successful_workflow_does_not_run_again(workflows: InProcessWorkflows):
    assert workflows.run(add.bind(1), workflow_id="w") == 1
    assert workflows.run(add.bind(1), workflow_id="w") == 1
    assert workflows.resume("w") == 1
    assert len(calls) == 1


def test_each_reading_gives_a_value_of_its_own(workflows: InProcessWorkflows):
    first = workflows.run(add.bind([1], [2]), workflow_id="w")
    first.append(3)
    assert workflows.get_output("w") == [1, 2]


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_tasks_never_share_a_value(workflows: InProcessWorkflows, size: int):
    @ray.remote
    def change(values):
        values[0] = 1
        return len(values)

    @ray.remote
    def make():
        return [0] * size

    @ray.remote
    def first(values, *changed):
        return values[0]

    made = make.bind()
    assert workflows.run(first.bind(made, change.bind(made), change.bind(made))) == 0


def test_large_values_go_through_the_store(workflows: InProcessWorkflows):
    @ray.remote
    def size(array):
        return array.nbytes

    assert workflows.run(size.bind(large.bind()), workflow_id="w") == 100_000
    sizes = [entry.size for entry in workflows.store.list("v1/workflows/w")]
    assert max(sizes) > 100_000
    assert workflows.run(large.bind()).nbytes == 100_000


def test_inputs_are_passed_to_the_graph(workflows: InProcessWorkflows):
    from ray.dag import InputNode

    with InputNode() as numbers:
        graph = add.bind(numbers["a"], numbers.b)
    assert workflows.run(graph, a=1, b=2) == 3


def test_the_output_of_a_task_can_be_read(workflows: InProcessWorkflows):
    graph = add.bind(add.options(**workflow.options(task_id="inner")).bind(1, 2), 3)
    workflows.run(graph, workflow_id="w")
    assert workflows.get_output("w", task_id="inner") == 3
    with pytest.raises(ValueError, match="Cannot load output from task id 'other'"):
        workflows.get_output("w", task_id="other")


# ---- references


def test_results_inside_a_list_are_references(workflows: InProcessWorkflows):
    @ray.remote
    def total(parts, by_name):
        assert all(isinstance(part, ray.ObjectRef) for part in parts)
        ready, rest = ray.wait(parts, num_returns=1)
        assert (len(ready), len(rest)) == (1, 1)
        return sum(ray.get(parts)) + ray.get(by_name["a"])

    graph = total.bind([add.bind(1), add.bind(2)], {"a": add.bind(3)})
    assert workflows.run(graph) == 6


def test_run_async_gives_a_reference(workflows: InProcessWorkflows):
    running = workflows.run_async(wait_at_gate.bind(5), workflow_id="w")
    assert ray.wait([running], timeout=0) == ([], [running])
    with pytest.raises(GetTimeoutError):
        ray.get([running], timeout=0)
    assert workflows.get_status("w") == "RUNNING"
    again = workflows.get_output_async("w")
    effects.gate.set()
    assert ray.get([running, again]) == [5, 5]
    assert ray.wait([running, again], num_returns=2) == ([running, again], [])


def test_a_reference_to_a_failure_raises_it(workflows: InProcessWorkflows):
    running = workflows.run_async(fail_until.bind(9))
    with pytest.raises(workflow.WorkflowExecutionError, match="not yet"):
        ray.get(running)


def test_a_reference_may_be_an_argument_and_part_of_a_value(workflows: InProcessWorkflows):
    @ray.remote
    def make():
        return {"inside": ray.put([1, 2])}

    @ray.remote
    def take(made, argument):
        return ray.get(made["inside"]) + argument

    store_it = take.bind(make.bind(), ray.put([3]))
    assert workflows.run(store_it) == [1, 2, 3]


def test_an_object_that_was_put_does_not_change():
    with testing.in_process():
        value = [1]
        ref = ray.put(value)
        value.append(2)
        ray.get(ref).append(3)
        assert ray.get(ref) == [1]


def test_ray_is_as_before_after_the_block():
    before = ray.get, ray.put, ray.wait
    with testing.in_process():
        assert ray.get is not before[0]
        with testing.in_process():
            pass
        assert ray.get is not before[0]
    assert (ray.get, ray.put, ray.wait) == before


# ---- failures


def test_a_failure_is_raised_with_its_cause_and_can_be_resumed(workflows: InProcessWorkflows):
    graph = add.bind(fail_until.bind(2), 10)
    with pytest.raises(workflow.WorkflowExecutionError) as raised:
        workflows.run(graph, workflow_id="w")
    assert type(raised.value.__cause__) is OSError
    assert str(raised.value.__cause__) == "not yet"
    assert raised.value.task_id == "test_in_process.fail_until"
    assert "raise OSError(what)" in raised.value.task_traceback
    assert workflows.get_status("w") == "FAILED"
    with pytest.raises(FailedOutputError):
        workflows.get_output("w")
    calls[:] = ["fail", "fail"]
    assert workflows.resume("w") == 13
    assert tasks_of("fail") == 3


def test_an_exception_keeps_its_type_attributes_and_causes(workflows: InProcessWorkflows):
    class OwnError(Exception):
        def __init__(self, code, *, hint):
            super().__init__(f"{code}: {hint}")
            self.code = code

        def __reduce__(self):
            return rebuild, (self.code,)

    def rebuild(code):
        return OwnError(code, hint="again")

    @ray.remote
    def fail():
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise OwnError(7, hint="x") from exc

    with pytest.raises(workflow.WorkflowExecutionError) as raised:
        workflows.run(fail.bind())
    cause = raised.value.__cause__
    assert type(cause).__name__ == "OwnError"
    assert cause.code == 7
    assert repr(cause.__cause__) == "KeyError('inner')"


def test_exceptions_are_retried_as_asked(workflows: InProcessWorkflows):
    retried = fail_until.options(max_retries=2, retry_exceptions=[OSError])
    assert workflows.run(retried.bind(3)) == 3
    calls.clear()
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(retried.bind(4))
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(fail_until.options(retry_exceptions=[KeyError]).bind(2))
    assert len(calls) == 1


def test_a_caught_exception_is_part_of_the_result(workflows: InProcessWorkflows):
    caught = workflow.options(catch_exceptions=True)
    value, error = workflows.run(fail_until.options(**caught).bind(9, "boom"))
    assert value is None
    assert repr(error) == "OSError('boom')"
    assert workflows.run(add.options(**caught).bind(1)) == (1, None)


def test_an_exit_fails_the_task_and_not_the_test(workflows: InProcessWorkflows):
    @ray.remote
    def leave():
        raise SystemExit(3)

    with pytest.raises(workflow.WorkflowExecutionError, match="SystemExit: 3"):
        workflows.run(leave.bind(), workflow_id="w")
    assert workflows.get_status("w") == "FAILED"


def test_a_value_that_can_not_be_pickled_is_refused_as_on_ray(workflows: InProcessWorkflows):
    @ray.remote
    def make_lock():
        return threading.Lock()

    with pytest.raises(workflow.WorkflowExecutionError, match=r"cannot pickle '_thread\.lock'"):
        workflows.run(make_lock.bind())
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock'"):
        workflows.run(add.bind(lock), workflow_id="w")
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflows.get_status("w")


def test_a_task_over_its_time_limit_fails(workflows: InProcessWorkflows):
    limited = wait_at_gate.options(**workflow.options(timeout_s=timedelta(milliseconds=10)))
    with pytest.raises(workflow.WorkflowExecutionError) as raised:
        workflows.run(limited.bind(1), workflow_id="w")
    assert isinstance(raised.value.__cause__, WorkflowTaskTimeoutError)
    assert workflows.get_status("w") == "FAILED"


# ---- continuations, checkpoints, contexts


def test_the_output_of_a_workflow_without_any_checkpoint_can_be_read(
    workflows: InProcessWorkflows,
):
    @ray.remote
    def outer():
        return workflow.continuation(add.bind(add.bind(1), 2))

    workflows.run(outer.options(**workflow.options(checkpoint=False)).bind(), workflow_id="w")
    assert workflows.get_output("w") == 3
    assert workflows.resume("w") == 3


def test_a_task_without_checkpoint_runs_again_on_a_resume(workflows: InProcessWorkflows):
    unchecked = add.options(**workflow.options(checkpoint=False)).bind(1)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(fail_until.bind(9, unchecked), workflow_id="w")
    assert calls == ["add", "fail"]
    calls[:] = ["x"] * 9
    assert workflows.resume("w") == 11
    assert calls[9:] == ["add", "fail"]


def test_a_task_knows_its_ids(workflows: InProcessWorkflows):
    @ray.remote(max_retries=1, retry_exceptions=True)
    def who():
        calls.append(workflow.get_context())
        if len(calls) == 1:
            raise OSError
        return None

    workflows.run(who.options(**workflow.options(task_id="t")).bind(), workflow_id="w")
    assert [(c.workflow_id, c.task_id, c.attempt, c.epoch) for c in calls] == [
        ("w", "t", 1, 1),
        ("w", "t", 2, 1),
    ]


def test_metadata_is_kept(workflows: InProcessWorkflows):
    before = time.time()
    graph = add.options(**workflow.options(task_id="t", metadata={"k": 1})).bind(1)
    workflows.run(graph, workflow_id="w", metadata={"owner": "me"})
    described = workflows.get_metadata("w")
    assert described["status"] == "SUCCESSFUL"
    assert described["user_metadata"] == {"owner": "me"}
    assert before <= described["stats"]["start_time"] <= described["stats"]["end_time"]
    assert workflows.get_metadata("w", "t")["user_metadata"] == {"k": 1}


# ---- stopping


def test_a_canceled_workflow_is_final(workflows: InProcessWorkflows):
    running = workflows.run_async(wait_at_gate.bind(1), workflow_id="w")
    workflows.cancel("w")
    assert workflows.get_status("w") == "CANCELED"
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(running)
    with pytest.raises(CanceledOutputError):
        workflows.get_output("w")
    with pytest.raises(workflow.WorkflowNotResumableError, match="canceled"):
        workflows.resume("w")


def test_a_suspended_workflow_is_resumed(workflows: InProcessWorkflows):
    running = workflows.run_async(wait_at_gate.bind(add.bind(1)), workflow_id="w")
    while "waits" not in calls:
        ray.wait([running], timeout=0.01)
    workflows.suspend("w")
    assert workflows.get_status("w") == "RESUMABLE"
    with pytest.raises(workflow.WorkflowSuspendedError):
        ray.get(running)
    with pytest.raises(SuspendedOutputError, match="Cannot load output") as raised:
        workflows.get_output("w")
    assert isinstance(raised.value, ValueError)
    effects.gate.set()
    assert workflows.resume("w") == 1
    assert tasks_of("add") == 1


def test_a_listener_is_stopped_with_its_workflow(workflows: InProcessWorkflows):
    running = workflows.run_async(workflow.sleep(3_600), workflow_id="w")
    ray.wait([running], timeout=0.01)
    workflows.cancel("w")
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(running)


def test_a_deleted_workflow_is_gone(workflows: InProcessWorkflows):
    workflows.run(add.bind(1), workflow_id="w")
    workflows.delete("w")
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflows.get_status("w")
    assert list(workflows.store.list("v1/workflows")) == []
    assert list(workflows.store.list("v1/status")) == []
    assert workflows.run(add.bind(2), workflow_id="w") == 2


def test_a_running_workflow_can_not_be_deleted(workflows: InProcessWorkflows):
    workflows.run_async(wait_at_gate.bind(1), workflow_id="w")
    with pytest.raises(workflow.WorkflowStillActiveError):
        workflows.delete("w")


def test_a_successful_workflow_can_not_be_canceled(workflows: InProcessWorkflows):
    workflows.run(add.bind(1), workflow_id="w")
    with pytest.raises(IllegalTransitionError):
        workflows.cancel("w")


# ---- several workflows


def test_workflows_are_listed_and_resumed_together(workflows: InProcessWorkflows):
    workflows.run(add.bind(1), workflow_id="good")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(fail_until.bind(9), workflow_id="bad")
    assert workflows.list_all() == [("bad", "FAILED"), ("good", "SUCCESSFUL")]
    assert workflows.list_all("FAILED") == [("bad", "FAILED")]
    calls[:] = ["x"] * 9
    [(workflow_id, output)] = workflows.resume_all(include_failed=True)
    assert (workflow_id, ray.get(output)) == ("bad", 10)


def test_limits_hold(workflows: InProcessWorkflows):
    workflows.init(max_running_workflows=1, max_pending_workflows=1)
    first = workflows.run_async(wait_at_gate.bind(1), workflow_id="first")
    second = workflows.run_async(add.bind(2), workflow_id="second")
    assert workflows.get_status("second") == "PENDING"
    with pytest.raises(queue.Full):
        workflows.run_async(add.bind(3), workflow_id="third")
    effects.gate.set()
    assert ray.get([first, second]) == [1, 2]


def test_a_hundred_tasks_run_though_threads_are_limited(workflows: InProcessWorkflows):
    @ray.remote
    def total(*numbers):
        return sum(numbers)

    assert workflows.run(total.bind(*[add.bind(number) for number in range(100)])) == 4_950


def test_a_task_that_was_stopped_before_it_began_never_begins(workflows: InProcessWorkflows):
    @ray.remote
    def all_of(*values):
        return None

    graph = all_of.bind(*[wait_at_gate.bind(number) for number in range(120)])
    running = workflows.run_async(graph, workflow_id="w")
    while tasks_of("waits") < 100:
        ray.wait([running], timeout=0.01)
    workflows.cancel("w")
    effects.gate.set()
    effects.join_tasks()
    assert tasks_of("waits") == 100


# ---- blocks and stores


def test_the_whole_api_works_so_inside_of_the_block():
    with testing.in_process():
        workflow.init(storage="s3://not/used")
        assert workflow.run(add.bind(1), workflow_id="w") == 1
        assert workflow.get_status("w") == "SUCCESSFUL"


def test_a_workflow_can_be_run_by_a_task(workflows: InProcessWorkflows):
    @ray.remote
    def outer():
        return workflow.run(add.bind(1), workflow_id="inner")

    assert workflows.run(outer.bind(), workflow_id="outer") == 1
    assert [name for name, _ in workflows.list_all()] == ["inner", "outer"]


def test_blocks_are_apart_unless_they_share_a_store():
    store = MemoryStore()
    with testing.in_process(store) as workflows:
        workflows.run(add.bind(1), workflow_id="w")
    with testing.in_process() as workflows, pytest.raises(workflow.WorkflowNotFoundError):
        workflows.get_status("w")
    with testing.in_process(store) as workflows:
        assert workflows.get_output("w") == 1


def test_a_block_may_keep_its_workflows_in_files(tmp_path: Path):
    with testing.in_process(str(tmp_path)) as workflows:
        workflows.run(large.bind(), workflow_id="w")
    with testing.in_process(str(tmp_path)) as workflows:
        assert workflows.get_output("w").nbytes == 100_000
    with testing.in_process(f"file://{tmp_path}") as workflows:
        assert workflows.get_status("w") == "SUCCESSFUL"


def test_a_storage_that_can_not_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    refused = pytest.raises(DataSaveError, match="can't be written")
    with refused, testing.in_process(str(tmp_path / "file")):
        pass
    assert ray.get.__module__ == "ray._private.worker"


def test_a_workflow_that_runs_at_the_end_of_the_block_is_suspended():
    store = MemoryStore()
    with testing.in_process(store) as workflows:
        workflows.run_async(wait_at_gate.bind(1), workflow_id="w")
    effects.gate.set()
    with testing.in_process(store) as workflows:
        assert workflows.get_status("w") == "RESUMABLE"
        assert workflows.resume("w") == 1


def test_after_a_crash_the_next_block_takes_over_at_once():
    store = MemoryStore()
    with testing.in_process(store) as workflows:
        running = workflows.run_async(wait_at_gate.bind(add.bind(1)), workflow_id="w")
        while "waits" not in calls:
            ray.wait([running], timeout=0.01)
        workflows.crash()
        with pytest.raises(RayActorError):
            ray.get(running)
        with pytest.raises(RayActorError):
            workflows.get_status("w")
    effects.gate.set()
    with testing.in_process(store) as workflows:
        assert workflows.get_status("w") == "RESUMABLE"
        assert workflows.resume("w") == 1
    assert tasks_of("add") == 1


def test_a_block_leaves_a_workflow_alone_that_another_block_runs():
    store = MemoryStore()
    with testing.in_process(store) as outer:
        running = outer.run_async(wait_at_gate.bind(1), workflow_id="w")
        with testing.in_process(store) as inner:
            assert inner.get_status("w") == "RUNNING"
            with pytest.raises(workflow.WorkflowStillActiveError):
                inner.delete("w")
            assert inner.run_async(wait_at_gate.bind(1), workflow_id="w") is not None
        effects.gate.set()
        assert ray.get(running) == 1
    assert tasks_of("waits") == 1


def test_the_log_goes_where_the_tests_log_goes(
    workflows: InProcessWorkflows, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="airflow_provider_rayworkflow"):
        workflows.run(add.options(**workflow.options(task_id="t")).bind(1), workflow_id="w")
    assert "Task status [RUNNING]\t[w@t]" in caplog.messages
    assert "Workflow status [SUCCESSFUL]\t[w]" in caplog.messages


# ---- bad input


@pytest.mark.parametrize(
    ("graph", "arguments", "error"),
    [
        (add.bind(1), {"workflow_id": "../x"}, ValueError),
        (add.bind(1), {"workflow_id": ""}, ValueError),
        (add.bind(1), {"metadata": {"a": object()}}, ValueError),
        (add.bind(1), {"on_existing": "maybe"}, ValueError),
        (1, {}, TypeError),
        (add, {}, TypeError),
    ],
    ids=["relative id", "empty id", "metadata", "on_existing", "a number", "not bound"],
)
def test_bad_input_is_refused_and_nothing_is_written(
    workflows: InProcessWorkflows, graph: object, arguments: dict, error: type[Exception]
):
    with pytest.raises(error):
        workflows.run(graph, **arguments)
    assert [*workflows.store.list("v1/status"), *workflows.store.list("v1/workflows")] == []


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({1: "a", "1": "b"}, "two of its keys are the same"),
        ({"a": [{None: 1, "null": 2}]}, "two of its keys are the same"),
        ({"a": 10**5000}, "what was given is not: Exceeds the limit"),
    ],
    ids=["keys", "keys inside", "digits"],
)
def test_metadata_that_would_come_back_otherwise_is_refused(
    workflows: InProcessWorkflows, metadata: dict, reason: str
):
    with pytest.raises(ValueError, match=reason):
        workflows.run(add.bind(1, 2), metadata=metadata)
    assert workflows.list_all() == []


def test_a_task_that_would_wait_for_its_own_workflow_fails(workflows: InProcessWorkflows):
    @ray.remote
    def run_again():
        return workflow.run(add.bind(1, 2), workflow_id="w")

    @ray.remote
    def get_own():
        return workflow.get_output("w", task_id=workflow.get_context().task_id)

    for task in (run_again, get_own):
        with pytest.raises(workflow.WorkflowExecutionError, match="would wait for its own end"):
            workflows.run(task.bind(), workflow_id="w", on_existing="restart")


def test_an_id_that_exists_may_be_refused_or_begun_anew(workflows: InProcessWorkflows):
    workflows.run(add.bind(1), workflow_id="w")
    with pytest.raises(WorkflowAlreadyExistsError):
        workflows.run(add.bind(2), workflow_id="w", on_existing="fail")
    assert workflows.run(add.bind(2), workflow_id="w", on_existing="restart") == 2
    assert workflows.get_output("w") == 2


# ---- what a resume says


def test_a_resume_with_the_same_graph_misses_no_tasks(
    workflows: InProcessWorkflows, caplog: pytest.LogCaptureFixture
):
    @ray.remote
    def expand(value):
        return workflow.continuation(add.bind(add.bind(value), 1))

    @ray.remote
    def fails_in_the_end(value):
        return workflow.continuation(fail_until.options(max_retries=0).bind(99, add.bind(value)))

    @ray.remote
    def value_or_zero(caught):
        return caught[0] or 0

    catching = fails_in_the_end.options(**workflow.options(catch_exceptions=True))
    middle = add.bind(expand.bind(1), value_or_zero.bind(catching.bind(2)))
    last = fail_until.options(**workflow.options(task_id="last"))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(add.bind(middle, last.bind(99, middle)), workflow_id="w")
    caplog.clear()
    calls[:] = ["x"] * 99
    assert workflows.resume("w") == 102
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_run_with_another_graph_says_which_checkpoints_it_has_no_use_for(
    workflows: InProcessWorkflows, caplog: pytest.LogCaptureFixture
):
    def graph(name: str):
        return fail_until.bind(4, add.options(**workflow.options(task_id=name)).bind("la", "ter"))

    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(graph("old"), workflow_id="w")
    workflows.run(graph("new"), workflow_id="w")
    assert "Workflow w: 1 tasks with a checkpoint are not in its graph any more: ['old']" in (
        caplog.messages
    )


def test_a_call_with_a_new_id_looks_nothing_up():
    store = NotingStore()

    def run(**its_id: str) -> list[tuple[str, str]]:
        store.calls.clear()
        # A caller has the output of a workflow that has ended from the storage.
        running = workflow.run_async(wait_at_gate.bind(1), **its_id)
        effects.gate.set()
        assert ray.get(running) == 1
        effects.gate.clear()
        # Who makes the index lists all statuses, and may do so beside.
        asked = [(call, key.split("/")[1]) for call, key in store.calls if key != keys.STATUSES]
        return [
            one
            for one in asked
            if one[0] in ("list", "put", "put_if_absent") and one[1] in ("status", "workflows")
        ]

    with testing.in_process(store):
        # A manager's first look at a storage makes the index.
        wait_until(lambda: WorkflowStore(store).index.load())
        made_for_it = run()
        of_the_caller = run(workflow_id="of the caller")
    written = [("put_if_absent", "workflows"), ("put", "status")]  # claimed, running
    written += [("put", "workflows"), ("put", "status")]  # committed, successful
    assert made_for_it == written
    assert of_the_caller == [("list", "status"), *written]


def test_an_id_made_for_the_call_is_looked_up_if_a_workflow_has_it(
    workflows: InProcessWorkflows, monkeypatch: pytest.MonkeyPatch
):
    # The manager has claimed it and died before it answered; so the call came again.
    assert workflow.run(add.bind(1, 2), workflow_id="twice") == 3
    monkeypatch.setattr(workflow.api, "new_workflow_id", lambda: "twice")
    assert workflow.run(add.bind(1, 2)) == 3
    assert calls == ["add"]


def test_new_workflows_of_several_threads_share_calls(workflows: InProcessWorkflows):
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda number: workflow.run(add.bind(number, 1)), range(40)))
    assert outputs == [number + 1 for number in range(40)]


def test_an_error_that_keeps_one_new_workflow_from_being_stored_concerns_no_other(
    workflows: InProcessWorkflows,
):
    workflow.init(max_running_workflows=1, max_pending_workflows=1)
    first = workflow.run_async(wait_at_gate.bind(1))
    errors = []

    def start(number: int) -> None:
        try:
            workflow.run_async(add.bind(number))
        except queue.Full as exc:
            errors.append(exc)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    assert len(errors) == 3
    effects.gate.set()
    assert ray.get(first) == 1


class Holder:
    def __init__(self, node: object) -> None:
        self.node = node


@pytest.mark.parametrize(
    "hold",
    [
        lambda node: [node, node],
        lambda node: {"k": node},
        lambda node: (1, {"deep": [node]}),
        Holder,
        lambda node: [workflow.continuation(node)],
    ],
)
def test_a_task_that_returns_nodes_in_something_fails_by_name(workflows: InProcessWorkflows, hold):
    @ray.remote
    def start():
        return hold(add.bind(1))

    with pytest.raises(
        workflow.WorkflowExecutionError, match="Give the nodes to one more task"
    ) as error:
        workflows.run(start.bind(), workflow_id="w")
    assert error.value.task_id.endswith("start")
    assert calls == []


def test_a_list_of_nodes_is_no_workflow(workflows: InProcessWorkflows):
    with pytest.raises(TypeError, match="is a list; give its nodes to one more task"):
        workflows.run([add.bind(1), add.bind(2)], workflow_id="w")
    assert workflow.list_all() == []


def test_a_task_that_outlives_its_manager_starts_no_ray():
    @ray.remote
    def large():
        effects.calls.append("large")
        effects.gate.wait()
        return b"x" * 100_000

    effects.calls.clear()
    effects.gate.clear()
    with testing.in_process() as workflows:
        workflows.run_async(large.bind(), workflow_id="outlives")
        wait_until(lambda: effects.calls)
    [thread] = [found for found in threading.enumerate() if "outlives@" in found.name]
    effects.gate.set()
    thread.join()
    assert not ray.is_initialized()
