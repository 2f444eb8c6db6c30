"""That the benchmark of maps can be measured, and what it counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_a_quick_run_gives_all_rows_and_a_manager_holds_what_it_may():
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "maps"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    memory, _ = done.stdout.splitlines()
    assert memory.startswith("map over 2,000 items, of which 1 % fail")
    # Counted, so it is much the same on every machine.
    assert float(memory.split("item  ")[1].split()[0].replace(",", "")) <= 3_000
