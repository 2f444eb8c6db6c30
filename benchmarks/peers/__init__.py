"""Programs in environments of their own: :func:`run` makes the environment and runs one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".envs"


def run(peer: str, *arguments: object) -> Any:
    """What ``peers/<peer>.py`` prints, as JSON; its packages are those of ``peers/<peer>.txt``."""
    python = _environment(peer)
    settings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "AIRFLOW"))
    }
    done = subprocess.run(
        [python, str(HERE / f"{peer}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=settings | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"},
        check=True,
        timeout=600,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _environment(peer: str) -> str:
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        uv = Path(sys.executable).with_name("uv")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", version, folder], check=True)
        packages = HERE / f"{peer}.txt"
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, "-r", packages], check=True
        )
        ready.touch()
    return str(python)
