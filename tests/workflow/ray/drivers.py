"""Programs of their own: drivers of the session's cluster, and clusters that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
# The tests' own modules, and the package of this tree, whichever is installed.
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[2])])

_START = """
import os, sys, time
import ray
from airflow_provider_rayworkflow import workflow
from witness import Crash, Gate, Ledger, wait_until
from pathlib import Path

here = Path({folder!r})
ledger, gate, crash = Ledger(here / "ledger"), Gate(here / "gate"), Crash(here / "crash")
"""

_CLUSTER = """
ray.init("local", num_cpus=2, object_store_memory=100 * 1024 * 1024, include_dashboard=False)
workflow.init(storage={storage!r})
"""


def program(text: str, folder: Path) -> str:
    """A driver's program: the tests' names, and the text."""
    return _START.format(folder=str(folder)) + textwrap.dedent(text)


def start(text: str, folder: Path, **env: str) -> subprocess.Popen[str]:
    """Start a program as a driver in a process of its own. Its output goes to ``folder/output``."""
    script = folder / f"driver{len(list(folder.glob('driver*.py')))}.py"
    script.write_text(program(text, folder))
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-u", str(script)],
            # A program that names no cluster gets its own, also if others run on this machine.
            env=os.environ | {"PYTHONPATH": PATHS, "RAY_ADDRESS": "local"} | env,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(text: str, folder: Path, *, timeout_s: float = 300, **env: str) -> str:
    """Run a program to its end, and return what it and its tasks printed."""
    process = start(text, folder, **env)
    try:
        code = process.wait(timeout_s)
    finally:
        process.kill()
    output = (folder / "output").read_text()
    assert code == 0, output
    return output


@contextmanager
def cluster(text: str, folder: Path, storage: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has a Ray cluster of its own, which dies with it."""
    process = start(_CLUSTER.format(storage=str(storage)) + textwrap.dedent(text), folder)
    try:
        yield process
    finally:
        process.kill()  # Ray's own processes follow it
        process.wait()
