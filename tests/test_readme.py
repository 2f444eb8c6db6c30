"""What the README shows is what the tests run."""

import re
import runpy
from pathlib import Path

from airflow_provider_rayworkflow.workflow.testing import in_process

ROOT = Path(__file__).parent.parent


def test_the_readmes_python_is_that_of_tested_files():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    files = ["example_dags/ray_squares.py", "docs/examples/squares.py"]
    assert blocks == [(ROOT / file).read_text() for file in files]


def test_the_example_without_airflow_prints_what_it_says(capsys):
    with in_process():
        runpy.run_path(str(ROOT / "docs/examples/squares.py"))
    assert capsys.readouterr().out == "285\nSUCCESSFUL\n"


def test_the_example_has_at_most_15_lines_of_code():
    lines = (ROOT / "example_dags/ray_squares.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 15
