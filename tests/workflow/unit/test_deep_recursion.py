"""Tail recursion of any depth takes no more of the manager than a shallow one."""

from __future__ import annotations

import gc
import logging

import effects
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing


@ray.remote
def count(number: int, end: int):
    if number in (500, end):
        gc.collect()
        effects.calls.append(len(gc.get_objects()))
    return number if number == end else workflow.continuation(count.bind(number + 1, end))


def test_a_thousand_more_levels_leave_no_object_behind(tmp_path, caplog: pytest.LogCaptureFixture):
    # pytest keeps each line that is logged, and Airflow, once imported, has INFO logged.
    caplog.set_level(logging.CRITICAL, logger="airflow_provider_rayworkflow")
    with effects.fresh(), testing.in_process(str(tmp_path)) as workflows:
        assert workflows.run(count.bind(0, 1_500), workflow_id="deep") == 1_500
        after_500, after_1_500 = effects.calls
    assert after_1_500 - after_500 < 500
