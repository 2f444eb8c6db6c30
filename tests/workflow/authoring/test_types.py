"""Types survive ``@workflow.task``: mypy and pyright see what a node will give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

CHECKED = [
    HERE / "typed_workflow.py",
    ROOT / "docs" / "examples" / "squares.py",
    ROOT / "example_dags" / "pipelines" / "words.py",
]


def output_of(*command: str | Path) -> str:
    """What a checker says; asserted to be no complaint."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_mypy_knows_what_nodes_give(tmp_path: Path):
    said = output_of("mypy", "--strict", "--cache-dir", tmp_path, *CHECKED)
    assert said == f"Success: no issues found in {len(CHECKED)} source files\n"


@pytest.mark.slow
def test_pyright_knows_what_nodes_give(tmp_path: Path):
    pytest.importorskip("basedpyright", reason="pyright, of the group dev, is not installed")
    project = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [str(file) for file in CHECKED],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    project.write_text(json.dumps(settings))
    said = output_of("basedpyright", "--project", project, "--pythonpath", sys.executable)
    assert "0 errors" in said
