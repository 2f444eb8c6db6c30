"""What a limit says, and which ones say nothing."""

from __future__ import annotations

import pytest

from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions
from airflow_provider_rayworkflow.workflow.model.task_limits import (
    Rate,
    TaskLimit,
    check_limit,
    rate_of,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50/minute", Rate(50, 60.0)),
        ("10/second", Rate(10, 1.0)),
        ("1000/hour", Rate(1000, 3600.0)),
        ("5/10s", Rate(5, 10.0)),
        ("5/10 seconds", Rate(5, 10.0)),
        (" 1 / 2.5 m ", Rate(1, 150.0)),
        ("3/day", Rate(3, 86400.0)),
    ],
)
def test_a_rate_is_a_number_in_a_time(text: str, rate: Rate):
    assert rate_of(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "50", "50/", "/minute", "0/minute", "5/0s", "-5/s", "1.5/s", "5/week", "5/sx", 50, None],
    ids=repr,
)
def test_what_is_no_rate_is_refused_with_examples(text: object):
    with pytest.raises(ValueError, match='"50/minute"'):
        rate_of(text)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (TaskLimit(name="", max_concurrency=1), "not empty"),
        (TaskLimit(name="a"), "max_concurrency, rate, or both"),
        (TaskLimit(name="a", max_concurrency=0), "from 1"),
        (TaskLimit(name="a", max_concurrency=True), "from 1"),
        (TaskLimit(name="a", rate="often"), "rate must be"),
        (TaskLimit(name="a", rate="99999999999999999999/second"), "1000000 at most"),
    ],
    ids=["no name", "no numbers", "zero", "a flag", "no rate", "a rate that is none"],
)
def test_a_limit_that_limits_nothing_is_refused(limit: TaskLimit, reason: str):
    with pytest.raises(ValueError, match=reason):
        check_limit(limit)


def test_the_options_of_a_task_keep_its_limits_as_json():
    limits = (
        TaskLimit(name="a", max_concurrency=8, rate="50/minute"),
        TaskLimit(name="b", rate="1/s"),
    )
    options = TaskOptions(limits=limits)
    assert TaskOptions.from_json(options.to_json()) == options
    assert options.to_json() == {
        "limits": [
            {"name": "a", "max_concurrency": 8, "rate": "50/minute"},
            {"name": "b", "max_concurrency": None, "rate": "1/s"},
        ]
    }
    assert str(limits[0]) == "a (8 at once, 50/minute)"
    assert str(limits[1]) == "b (1/s)"


def test_a_stored_limit_without_sense_is_refused():
    with pytest.raises(ValueError, match="from 1"):
        TaskOptions.from_json({"limits": [{"name": "a", "max_concurrency": -1}]})
