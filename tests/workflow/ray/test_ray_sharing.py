"""Short tasks share a Ray task; what each of them may rely on stays as if it had one of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

import pytest
import ray
from witness import Crash, Gate, Ledger

from airflow_provider_rayworkflow import workflow


@ray.remote
def step(before: object, act: Callable[[], None] | None = None) -> tuple[str, int]:
    """Do something, and tell in which Ray task and which attempt."""
    if act is not None:
        act()
    return ray.get_runtime_context().get_task_id(), workflow.get_context().attempt


@ray.remote
def collect(*results: object) -> list[object]:
    return list(results)


def chain(length: int, function=step):
    nodes = [function.bind(None)]
    for _ in range(length - 1):
        nodes.append(function.bind(nodes[-1]))
    return collect.options(**workflow.options(isolate=True)).bind(*nodes)


def fan_out(acts: list[Callable[[], None] | None], function=step):
    return collect.bind(*[function.bind(number, act) for number, act in enumerate(acts)])


def learn(function=step) -> None:
    """Run a function until it is known to be short."""
    for _ in range(50):
        if len({task for task, _ in workflow.run(chain(10, function))}) < 10:
            return
    raise AssertionError("nothing was shared")


def test_a_linear_run_shares(manager):
    learn()
    results = workflow.run(chain(20))
    assert len({task for task, _ in results}) < 20
    assert {attempt for _, attempt in results} == {1}


def test_tasks_that_are_ready_share(manager):
    learn()
    results = workflow.run(fan_out([None] * 100))
    assert len({task for task, _ in results}) < 100


@pytest.mark.parametrize(
    "options",
    [
        workflow.options(isolate=True),
        {"num_cpus": 0.5},
        {"max_retries": 0},
        {"runtime_env": {"env_vars": {"OWN": "1"}}},
    ],
    ids=["isolate", "num_cpus", "max_retries", "runtime_env"],
)
def test_a_task_with_ray_options_has_a_ray_task_of_its_own(manager, options):
    learn()
    results = workflow.run(chain(5, step.options(**options)))
    assert len({task for task, _ in results}) == 5


def test_sharing_can_be_switched_off(fresh_manager):
    fresh_manager(sharing=False)
    for _ in range(3):
        assert len({task for task, _ in workflow.run(chain(5))}) == 5
    with pytest.raises(ValueError, match="runs with sharing=False, and sharing=True"):
        workflow.init(sharing=True)
    with pytest.raises(TypeError, match="'sharing' must be True, False or None, not 1"):
        workflow.init(sharing=1)


def test_the_environment_can_switch_sharing_off(fresh_manager, monkeypatch):
    monkeypatch.setenv("RAY_WORKFLOW_SHARING", "0")
    fresh_manager()
    with pytest.raises(ValueError, match="runs with sharing=False"):
        workflow.init(sharing=True)


def test_nothing_waits_behind_a_task_that_turns_out_long(manager, ledger: Ledger, gate: Gate):
    learn()
    acts = [lambda number=number: ledger.write(number) for number in range(60)]
    acts[10] = gate.wait
    workflow.run_async(fan_out(acts), workflow_id="turns-out-long")
    for number in range(60):
        if number != 10:
            ledger.wait_for(number)
    gate.open()
    assert len(workflow.get_output("turns-out-long")) == 60
    assert Counter(ledger.lines()) == {str(number): 1 for number in range(60) if number != 10}


def test_a_worker_that_dies_with_several_tasks_costs_none_of_them_a_retry(
    manager, ledger: Ledger, crash: Crash
):
    # The last one: those that share its Ray task have written their lines before it.
    def note(number: int) -> None:
        ledger.write(f"{number} {ray.get_runtime_context().get_task_id()}")
        if number == 39:
            crash.pass_by()

    learn()
    acts = [lambda number=number: note(number) for number in range(40)]
    for _ in range(20):
        ledger.path.unlink(missing_ok=True)
        crash.arm(times=2)  # with others around it, then alone
        output = workflow.run_async(fan_out(acts, step.options(max_retries=1)))
        ledger.wait_for_any("39 ")
        last, *others = sorted(ledger.lines(), key=lambda line: not line.startswith("39 "))
        if any(other.split()[1] == last.split()[1] for other in others):
            results = ray.get(output)
            assert len(results) == 40
            assert results[39][1] == 3
            return
        # On a busy machine it may have a Ray task of its own, and so one retry too few.
        with pytest.raises(workflow.WorkflowExecutionError):
            ray.get(output)
    raise AssertionError("it never shared a Ray task")


def test_a_task_that_kills_its_worker_each_time_fails_alone(manager, new_id: str):
    learn()
    deadly = step.options(max_retries=1, **workflow.options(task_id="deadly"))
    nodes = [step.bind(number) for number in range(20)] + [deadly.bind(0, lambda: os._exit(1))]
    with pytest.raises(workflow.WorkflowExecutionError, match="deadly"):
        workflow.run(collect.bind(*nodes), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE


def test_a_time_limit_is_that_of_one_task(manager):
    learn()
    limited = step.options(**workflow.options(timeout_s=1.0, catch_exceptions=True))
    acts: list[Callable[[], None] | None] = [None] * 30
    acts[3] = lambda: time.sleep(60)
    results = workflow.run(fan_out(acts, limited))
    errors = {number: error for number, (_, error) in enumerate(results) if error is not None}
    assert list(errors) == [3]
    assert isinstance(errors[3], workflow.WorkflowTaskTimeoutError)


def test_an_exception_is_that_of_one_task(manager):
    def fail() -> None:
        raise ValueError("mine")

    learn()
    acts: list[Callable[[], None] | None] = [None] * 30
    acts[3] = fail
    results = workflow.run(fan_out(acts, step.options(**workflow.options(catch_exceptions=True))))
    assert [str(error) for _, error in results if error is not None] == ["mine"]


def test_a_task_that_has_not_begun_when_its_workflow_is_canceled_never_begins(
    manager, ledger: Ledger, gate: Gate, new_id: str
):
    learn()

    def block() -> None:
        ledger.write("begun")
        gate.wait()

    first = step.bind(None, block)
    second = step.bind(first, lambda: ledger.write("second"))
    workflow.run_async(collect.bind(second), workflow_id=new_id)
    ledger.wait_for("begun")
    workflow.cancel(new_id)
    gate.open()
    workflow.run(chain(3))
    assert ledger.lines() == ["begun"]


def test_large_values_pass_within_a_linear_run(manager):
    @ray.remote
    def grow(data: bytes) -> bytes:
        return data + bytes(50_000)

    def run() -> int:
        node = grow.bind(b"")
        for _ in range(4):
            node = grow.bind(node)
        return len(workflow.run(node))

    assert [run() for _ in range(5)] == [250_000] * 5


def test_a_continuation_ends_a_linear_run(manager, ledger: Ledger):
    @ray.remote
    def double(number: int) -> int:
        return 2 * number

    @ray.remote
    def continued(number: int) -> object:
        return workflow.continuation(double.bind(number))

    def run() -> int:
        return workflow.run(double.bind(continued.bind(double.bind(1))))

    assert [run() for _ in range(8)] == [8] * 8
