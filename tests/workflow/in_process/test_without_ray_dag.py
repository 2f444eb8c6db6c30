"""Ray is letting go of ``.bind()``: where ``ray.dag`` is gone, all works but that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

WITHOUT = "import sys; sys.modules['ray.dag'] = None; import pytest; sys.exit(pytest.main())"


def pytest_without_ray_dag(file: Path) -> tuple[int, str]:
    """Exit code and output of the tests of a file."""
    command = [sys.executable, "-c", WITHOUT, "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_core_works_without_ray_dag():
    code, output = pytest_without_ray_dag(HERE / "test_core.py")
    assert code == 0, output
    assert "skipped" not in output


def test_a_file_that_binds_does_not(tmp_path: Path):
    program = tmp_path / "test_bound.py"
    program.write_text(
        "import ray\n@ray.remote\ndef one(): return 1\ndef test_bind():\n    one.bind()\n"
    )
    code, output = pytest_without_ray_dag(program)
    assert code == 1
    assert "ray.dag" in output
