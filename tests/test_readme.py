"""What the README shows is what the tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readmes_example_is_the_example_dag():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks == [(ROOT / "example_dags/ray_squares.py").read_text()]


def test_the_example_has_at_most_20_lines():
    assert len((ROOT / "example_dags/ray_squares.py").read_text().splitlines()) <= 20
