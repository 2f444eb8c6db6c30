"""That the benchmarks run; what they find on a busy machine says nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def bench(*works: str) -> list[str]:
    """The lines that a quick run prints."""
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", *works]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_what_needs_no_cluster_can_be_measured():
    lines = bench("submit", "listing", "large_values")
    assert [line.partition("  ")[0] for line in lines[4:]] == [
        "list_all over 100 workflows",
        "get_status of one that has ended",
        "write of a numpy array of 16 MiB (MB/s)",
        "read of a numpy array of 16 MiB (MB/s)",
        "peak memory while a numpy array of 16 MiB is written",
        "write of a Arrow table of 16 MiB (MB/s)",
        "read of a Arrow table of 16 MiB (MB/s)",
        "peak memory while a Arrow table of 16 MiB is written",
    ]
    # Counted, so it is the same on every machine.
    assert [line.split()[-2:] for line in lines[4:6]] == [["≥", "1"], ["≥", "1"]]


@pytest.mark.ray
@pytest.mark.slow
def test_what_needs_a_cluster_can_be_measured():
    assert len(bench("tiny")) == 4


def test_an_unknown_work_is_refused():
    command = [sys.executable, "-m", "benchmarks.bench", "nothing"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "no such work: nothing; there are airflow_pipeline, large_values" in done.stderr
