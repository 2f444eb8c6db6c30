"""Importing the example DAG's operators against importing Airflow's SDK alone."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.rows import Row, by_time

EXAMPLES = Path(__file__).parent.parent.parent / "example_dags"
_SDK = "from airflow.sdk import DAG, task; from airflow.sdk.bases.operator import BaseOperator"
_EXAMPLE = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); {_SDK}; import ray_squares"


def measure(quick: bool) -> list[Row]:
    rounds = 1 if quick else 11
    times: dict[str, list[float]] = {_SDK: [], _EXAMPLE: []}
    for number in range(rounds + 1):
        for program, measured in times.items():
            begun_at = _used_by_children()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            if number:
                measured.append(_used_by_children() - begun_at)
    ours, theirs = (statistics.median(times[program]) for program in (_EXAMPLE, _SDK))
    return [
        by_time(
            "a process that parses example_dags/ray_squares.py",
            "one that imports airflow.sdk (CPU time)",
            ours=ours,
            theirs=theirs,
            goal="≥ 0.95 (at most 1.05 times as long)",
        )
    ]


def _used_by_children() -> float:
    # CPU time, of which other work on the machine takes little away.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
