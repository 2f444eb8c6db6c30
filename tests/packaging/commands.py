"""Commands as a user gives them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def install(wheel: Path, venv: Path) -> None:
    """Make an environment with the wheel and what it needs, as pinned."""
    run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, venv])
    pins = ["--constraints", ROOT / "constraints.txt"]
    python = ["--python", venv / "bin" / "python"]
    run([BIN / "uv", "pip", "install", "--quiet", *python, *pins, wheel])


def run(command: list[str | Path], cwd: Path | None = None, home: Path | None = None) -> str:
    """What a command prints; its whole output if it fails. Airflow finds nothing but ``home``."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")
    }
    if home is not None:
        connection = {
            "conn_type": "ray_workflow",
            "extra": {"storage": str(home / "workflows"), "num_cpus": 1},
        }
        environment |= {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": json.dumps(connection),
        }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
