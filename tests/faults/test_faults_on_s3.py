"""Seeded runs with an S3 server: it fails, and processes die at its writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults import S3
from reports import Report
from runs import run
from suite import planned
from worlds import World, s3_world

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1_500)]

#: How many runs of each fault.
RUNS = {
    "killed at a write": 4,
    "killed at a step of a submission": 3,
    "S3 server killed": 1,
    "storage fails": 1,
    "storage hangs": 1,
    "storage is slow": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with s3_world(tmp_path_factory.mktemp("faults")) as world:
        yield world


@pytest.mark.parametrize("fault", RUNS)
def test_the_invariants_hold(world: World, fault: str, tell: Callable[[Report], None]):
    for seed in planned(range(100))[fault][: RUNS[fault]]:
        report = run(world, fault, S3[fault], seed)
        tell(report)
        assert report.problems == []
