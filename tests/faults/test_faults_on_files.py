"""Seeded runs with local files: processes die, and nothing that is committed is lost or runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults import LOCAL
from reports import Report
from runs import run
from suite import planned
from worlds import World, local_world

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1_500)]

#: How many runs of each fault; those that start clusters come last.
RUNS = {
    "worker killed": 2,
    "manager killed": 2,
    "reader of submissions killed": 2,
    "builder of a graph killed": 1,
    "driver killed": 2,
    "raylet killed": 1,
    "two clusters resume": 1,
    "folder deleted": 1,
    "descriptors run out": 1,
    "tasks fail": 2,
    "memory runs short": 1,
    "workflow canceled": 1,
    "cluster killed": 1,
    "manager stopped": 1,
    "three managers race": 1,
    "clocks are set": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with local_world(tmp_path_factory.mktemp("faults")) as world:
        yield world


@pytest.mark.parametrize("fault", RUNS)
def test_the_invariants_hold(world: World, fault: str, tell: Callable[[Report], None]):
    for seed in planned(range(100))[fault][: RUNS[fault]]:
        report = run(world, fault, LOCAL[fault], seed)
        tell(report)
        assert report.problems == []
