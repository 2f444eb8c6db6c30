"""docs/examples/flights_backfill.py: of the second backfill only the last step of each day runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow import testing

PROGRAM = Path(__file__).parents[3] / "docs" / "examples" / "flights_backfill.py"


def test_the_second_backfill_runs_30_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with testing.in_process(str(tmp_path)):
        runpy.run_path(str(PROGRAM), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if "late flights" in line]
    assert lines == [
        "monday: 5602 late flights, 90 tasks have run",
        "tuesday: 3457 late flights, 30 tasks have run",
    ]
