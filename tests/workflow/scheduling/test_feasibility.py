"""What a task needs on one node, and which nodes have it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.scheduling.feasibility import (
    demand_of,
    fits,
    infeasible_failure,
)

GIB = 2**30
SMALL = {"CPU": 2.0, "memory": 4.0 * GIB, "object_store_memory": 1.0 * GIB}
LARGE = {"CPU": 8.0, "memory": 32.0 * GIB, "GPU": 1.0, "accelerator_type:T4": 1.0}


@pytest.mark.parametrize(
    ("options", "demand"),
    [
        ({}, {"CPU": 1}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": None, "num_gpus": 0.5}, {"CPU": 1, "GPU": 0.5}),
        ({"memory": 5, "resources": {"disk": 2}}, {"CPU": 1, "memory": 5, "disk": 2}),
        ({"accelerator_type": "T4", "num_cpus": 0}, {"accelerator_type:T4": 0.001}),
        ({"runtime_env": {}, "scheduling_strategy": "SPREAD"}, {"CPU": 1}),
    ],
    ids=repr,
)
def test_options_of_ray_are_a_demand_on_one_node(options: Any, demand: dict[str, float]):
    assert demand_of(options) == demand


@pytest.mark.parametrize(
    ("demand", "is_feasible"),
    [
        ({}, True),
        ({"CPU": 8}, True),
        ({"CPU": 9}, False),  # the nodes together have ten
        ({"CPU": 2, "disk": 1}, False),
        ({"memory": 33 * GIB}, False),
        ({"GPU": 1, "CPU": 8, "memory": 32 * GIB}, True),
        ({"CPU": 0.1 + 0.2 + 7.7}, True),  # not a bit more than 8
    ],
    ids=repr,
)
def test_a_demand_must_fit_on_one_node(demand: dict[str, float], is_feasible: bool):
    assert fits(demand, [SMALL, LARGE]) is is_feasible


def test_no_node_fits_where_there_is_none():
    assert not fits({"CPU": 1}, [])


def test_the_failure_names_what_was_asked_for_and_the_node_that_comes_nearest():
    failure = infeasible_failure("fit", {"CPU": 1, "memory": 64 * GIB}, [SMALL, LARGE])
    assert failure.task_id == "fit"
    assert failure.system
    assert (
        "asks for CPU=1, memory=64 GiB on one node, and the cluster's largest node has CPU=8, "
        "memory=32 GiB." in failure.message
    )
    failure = infeasible_failure("fit", {"CPU": 1}, [])
    assert "the cluster has no node" in failure.message
