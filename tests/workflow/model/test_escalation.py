"""What a task's next attempt asks for."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow import task_options
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.escalation import (
    Escalation,
    amounts_text,
    check_limits,
    escalation_of,
    with_amounts,
)
from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions

GIB = 2**30


def asked_by(escalation: Escalation, attempts: int) -> list[dict[str, float]]:
    """What the attempts after the first one ask for."""
    found: list[dict[str, float]] = []
    for _ in range(attempts):
        found.append(escalation.after(found[-1] if found else {}))
    return found


def test_each_attempt_asks_for_more_than_the_last_one_up_to_the_limit():
    escalation = Escalation(
        first={"memory": GIB, "num_cpus": 1},
        factors={"memory": 2.0, "num_cpus": 1.0},
        limits={"memory": 5 * GIB},
    )
    assert asked_by(escalation, 4) == [
        {"memory": 2 * GIB, "num_cpus": 1},
        {"memory": 4 * GIB, "num_cpus": 1},
        {"memory": 5 * GIB, "num_cpus": 1},
        {"memory": 5 * GIB, "num_cpus": 1},
    ]


@pytest.mark.parametrize(
    ("first", "factor", "limit", "asked"),
    [
        (0.1, 2.0, 1, [0.2, 0.4, 0.8, 1]),
        (1, 1.5, 4.5, [2, 3, 4, 4]),  # Ray takes no 1.5 CPUs
        (2, 1.1, 8, [3, 4, 5, 6]),
    ],
)
def test_cpus_are_whole_numbers_from_one_on(
    first: float, factor: float, limit: float, asked: list[float]
):
    escalation = Escalation(
        first={"num_cpus": first}, factors={"num_cpus": factor}, limits={"num_cpus": limit}
    )
    assert [amounts["num_cpus"] for amounts in asked_by(escalation, 4)] == asked


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("64GiB", 64 * GIB),
        ("500MB", 500_000_000),
        (" 1.5 TiB ", 1.5 * 1024 * GIB),
        ("12 KB", 12_000),
        ("77B", 77),
        (123, 123),
    ],
    ids=repr,
)
def test_memory_is_bytes_or_a_size(given: Any, size: float):
    assert check_limits({"memory": given}) == {"memory": size}


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("escalate", 2.0, "escalate must be factors by name"),
        ("escalate", {}, "escalate must be factors by name"),
        ("escalate", {"memory": 0.5}, "factors from 1 on"),
        ("escalate", {"memory": "2"}, "factors from 1 on"),
        ("escalate", {"memory": float("inf")}, "factors from 1 on"),
        ("escalate", {3: 2.0}, "factors from 1 on"),
        ("limit", "64GiB", "limit must be amounts by name"),
        ("limit", {"memory": "64 gigs"}, 'a size such as "64GiB"'),
        ("limit", {"memory": -1}, "above 0"),
        ("limit", {"num_cpus": "4"}, "above 0"),
        ("limit", {"num_cpus": float("nan")}, "above 0"),
        ("escalate_on", "out_of_memory", "escalate_on must be a list"),
        ("escalate_on", ["oom"], "escalate_on must be a list"),
        ("escalate_on", [], "escalate_on must be a list"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_where_it_is_given(option: str, value: Any, says: str):
    with pytest.raises(ValueError, match=says):
        task_options.options(**{option: value})


@pytest.mark.parametrize(
    ("ours", "rays", "says"),
    [
        ({"escalate": {"memory": 2.0}}, {}, "asks for none. Give it memory="),
        ({"escalate": {"num_gpus": 2.0}}, {"num_gpus": 0}, "asks for none. Give it num_gpus="),
        ({"escalate": {"disk": 2.0}}, {"resources": {"other": 1}}, 'Give it resources={"disk"'),
        ({"limit": {"memory": 5}}, {"memory": 1}, "no escalate"),
        ({"escalate_on": (Cause.CRASHED,)}, {}, "no escalate"),
        (
            {"escalate": {"num_cpus": 2.0}, "limit": {"memory": 5}},
            {"memory": 1},
            r"a limit of \['memory'\], and escalate is of \['num_cpus'\]",
        ),
        (
            {"escalate": {"memory": 2.0}, "limit": {"memory": GIB}},
            {"memory": 2 * GIB},
            "asks for memory=2 GiB, and its limit is memory=1 GiB",
        ),
    ],
    ids=repr,
)
def test_what_does_not_fit_together_is_refused_with_the_task(ours: Any, rays: Any, says: str):
    with pytest.raises(ValueError, match=says) as caught:
        escalation_of("fit", ours, rays)
    assert "'fit'" in str(caught.value)


def test_a_task_asks_for_one_cpu_unless_it_says_otherwise():
    escalation = escalation_of("fit", {"escalate": {"num_cpus": 2.0}}, {})
    assert escalation is not None
    assert escalation.after({}) == {"num_cpus": 2}
    assert escalation.on == (Cause.OUT_OF_MEMORY,)


def test_amounts_take_the_place_of_what_the_author_gave():
    rays = {"num_cpus": 1, "resources": {"disk": 1, "other": 3}, "name": "fit"}
    assert with_amounts(rays, [("memory", 5), ("num_cpus", 2), ("disk", 4)]) == {
        "num_cpus": 2,
        "memory": 5,
        "resources": {"disk": 4, "other": 3},
        "name": "fit",
    }


def test_it_is_stored_with_the_options_of_its_task():
    escalation = Escalation(
        first={"memory": GIB}, factors={"memory": 2.0}, limits={}, on=(Cause.CRASHED, Cause.TIMEOUT)
    )
    options = TaskOptions(escalation=escalation)
    assert TaskOptions.from_json(options.to_json()) == options
    assert "escalation" not in TaskOptions(max_crashes=1).to_json()


def test_amounts_are_shown_with_units():
    assert amounts_text({"memory": 1.5 * GIB, "num_cpus": 2}) == "memory=1.5 GiB, num_cpus=2"
    assert amounts_text({"memory": 200, "disk": 0.5}) == "memory=200 B, disk=0.5"
