"""Programs in environments of their own, which do what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".envs"

#: Does a work, by its name and arguments, and gives the seconds that it took.
Ask = Callable[..., float]


@contextmanager
def running(peer: str) -> Iterator[Ask]:
    """``peers/<peer>.py`` as a process that waits to be asked."""
    with subprocess.Popen(
        command(peer),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:

        def ask(work: str, *arguments: object) -> float:
            print(json.dumps([work, *arguments]), file=process.stdin, flush=True)
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise RuntimeError(f"{peer} ended while it did {work}")
            seconds: float = json.loads(line)
            return seconds

        yield ask


def environment() -> dict[str, str]:
    """Of a peer's process: ours is not for it."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "AIRFLOW", "PYTHONPATH"))
    }
    return settings | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def command(peer: str) -> list[str]:
    """What starts ``peers/<peer>.py``, with the packages of ``peers/<peer>.txt``."""
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
    return [str(python), str(HERE / f"{peer}.py")]
