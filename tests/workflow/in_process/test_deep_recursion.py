"""Tail recursion of any depth takes no more of the manager than a shallow one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile

import effects
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing


@ray.remote
def count(number: int, end: int):
    if number in (500, end):
        gc.collect()
        effects.calls.append(len(gc.get_objects()))
    return number if number == end else workflow.continuation(count.bind(number + 1, end))


def print_objects_after_a_thousand_more_levels() -> None:
    with tempfile.TemporaryDirectory() as storage, testing.in_process(storage) as workflows:
        assert workflows.run(count.bind(0, 1_500), workflow_id="deep") == 1_500
    after_500, after_1_500 = effects.calls
    print(after_1_500 - after_500)


def test_a_thousand_more_levels_leave_no_object_behind():
    # In a process of its own: other threads of this one may make objects meanwhile.
    counted = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert int(counted.stdout) < 500, counted.stderr


if __name__ == "__main__":
    print_objects_after_a_thousand_more_levels()
