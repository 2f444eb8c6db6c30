"""That the benchmarks of clusters and of the local Ray can be measured; what they find on a busy machine says nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize(
    ("work", "rows"),
    [("cluster_start", 2), ("cluster_waiting", 4), ("local_start", 4), ("local_mapped", 4)],
)
def test_a_quick_run_gives_all_rows(work: str, rows: int):
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", work]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert len(done.stdout.splitlines()) == rows
