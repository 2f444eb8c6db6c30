"""Seeded runs of Airflow tasks on a local Ray: the tasks' processes die, and those of the local Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults import AIRFLOW
from reports import Report
from runs import run
from suite import planned
from worlds import AirflowWorld, airflow_world

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
]

#: How many runs of each fault.
RUNS = {
    "Airflow task killed": 1,
    "starter of the local Ray killed": 1,
    "keeper of the local Ray killed": 1,
    "local Ray killed": 1,
    "part of the local Ray killed": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowWorld]:
    with airflow_world(tmp_path_factory.mktemp("faults")) as world:
        yield world


@pytest.mark.parametrize("fault", RUNS)
def test_the_invariants_hold(world: AirflowWorld, fault: str, tell: Callable[[Report], None]):
    for seed in planned(range(100))[fault][: RUNS[fault]]:
        report = run(world, fault, AIRFLOW[fault], seed)
        tell(report)
        assert report.problems == []
