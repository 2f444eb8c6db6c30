"""Workflows within workflows, on real workers with a limit: no kind of caller waits for ever."""

from __future__ import annotations

import threading

import pytest
import ray

from airflow_provider_rayworkflow import workflow


def run(dag, name: str):
    return workflow.run(dag, workflow_id=name)


def run_async(dag, name: str):
    return ray.get(workflow.run_async(dag, workflow_id=name))


def get_output(dag, name: str):
    workflow.run_async(dag, workflow_id=name)
    return workflow.get_output(name)


class Caller:
    def call(self, ask, dag, name: str):
        return ask(dag, name)


def by_task(ask, dag, name: str):
    return ask(dag, name)


def by_actor(ask, dag, name: str):
    return ray.get(ray.remote(Caller).remote().call.remote(ask, dag, name))


def by_named_actor(ask, dag, name: str):
    """Of an actor that the driver has made, and that several workflows share."""
    return ray.get(ray.get_actor("caller").call.remote(ask, dag, name))


def by_plain_task(ask, dag, name: str):
    return ray.get(ray.remote(by_task).remote(ask, dag, name))


def by_thread(ask, dag, name: str):
    results = []
    thread = threading.Thread(target=lambda: results.append(ask(dag, name)))
    thread.start()
    thread.join()
    return results[0]


@ray.remote(num_cpus=0.1)
def nest(depth: int, by, ask, name: str):
    if depth == 0:
        return 0
    return 1 + by(ask, nest.bind(depth - 1, by, ask, f"{name}-"), f"{name}-")


@pytest.fixture
def caller(ray_cluster):
    actor = ray.remote(Caller).options(name="caller", max_concurrency=20, num_cpus=0).remote()
    yield actor
    ray.kill(actor)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_nested_workflows_end_with_each_limit_and_each_kind_of_caller(fresh_manager, caller, limit):
    fresh_manager(max_running_workflows=limit, max_pending_workflows=100)
    callers = [(by, run, 3) for by in (by_task, by_actor, by_named_actor, by_plain_task, by_thread)]
    callers += [
        (by, ask, 1) for by in (by_named_actor, by_thread) for ask in (run_async, get_output)
    ]
    outputs = [
        workflow.run_async(nest.bind(depth, by, ask, f"{by.__name__}.{ask.__name__}"))
        for by, ask, depth in callers
    ]
    assert ray.get(outputs) == [depth for _, _, depth in callers]


def test_a_workflow_that_a_worker_waits_for_needs_no_place_in_the_queue(fresh_manager, caller):
    fresh_manager(max_running_workflows=1, max_pending_workflows=0)
    for by in (by_task, by_actor, by_named_actor, by_plain_task, by_thread):
        dag = nest.bind(2, by, run, by.__name__)
        assert workflow.run(dag) == 2


@pytest.mark.timeout(600)  # each of the tasks that wait has a worker, which takes seconds to start
def test_waiting_tasks_need_no_more_cpus(fresh_manager):
    fresh_manager(max_running_workflows=1, max_pending_workflows=10)
    # Twice as many tasks wait as there are CPUs: one that waits has none.
    whole = nest.options(num_cpus=1)
    outer = [workflow.run_async(whole.bind(3, by_task, run, f"w{i}")) for i in range(8)]
    assert ray.get(outer) == [3] * 8
