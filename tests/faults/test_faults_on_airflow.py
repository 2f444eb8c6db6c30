"""A seeded run in which the process of an Airflow task is killed, with the Ray in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faults import AIRFLOW
from reports import Report
from runs import run
from worlds import local_world

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
]


@pytest.mark.parametrize("fault", AIRFLOW)
def test_the_invariants_hold(tmp_path: Path, fault: str, tell: Callable[[Report], None]):
    with local_world(tmp_path) as world:
        report = run(world, fault, AIRFLOW[fault], 27)
    tell(report)
    assert report.problems == []
