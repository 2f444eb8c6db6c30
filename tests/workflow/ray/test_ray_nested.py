"""Workflows within tasks of workflows, on real workers with a limit."""

from __future__ import annotations

import pytest
import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def nest(depth, name):
    if depth == 0:
        return 0
    return 1 + workflow.run(nest.bind(depth - 1, f"{name}-"), workflow_id=f"{name}-")


@ray.remote
class Driver:
    def run(self, depth, name):
        return workflow.run(nest.bind(depth, name), workflow_id=name)


@pytest.mark.parametrize("limit", [1, 2])
def test_nested_workflows_end_whatever_the_limit_and_need_no_more_cpus(fresh_manager, limit):
    fresh_manager(max_running_workflows=limit, max_pending_workflows=10)
    # Twice as many tasks wait as there are CPUs: one that waits has none.
    outer = [workflow.run_async(nest.bind(3, f"w{i}"), workflow_id=f"w{i}") for i in range(4)]
    driver = Driver.remote()
    assert ray.get(driver.run.remote(3, "by-actor")) == 3
    assert ray.get(outer) == [3] * 4
