"""Functions of ``__main__``, which are pickled with their code, are corrected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import ray
from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing

RAN = Path({ran!r})
LIMIT = 3

def note(name):
    with RAN.open("a") as file:
        file.write(name + " ")

def load(day):
    note("load")
    return {{day, "b", "c", "d"}}

def clean(rows, limit):
    note("clean")
    return sorted(rows)[:limit]

def report(rows):
    note("report")
    raise ValueError("a bug")

def split(rows):
    note("split")
    return workflow.continuation(named(report).bind(rows))

def named(function):
    return ray.remote(function).options(**workflow.options(task_id=function.__name__))

def daily():
    return named(split).bind(named(clean).bind(named(load).bind("a"), LIMIT))
"""
MAIN = """
with testing.in_process({storage!r}) as workflows:
    try:
        print("RESULT", workflows.run(daily(), workflow_id="w"))
    except workflow.WorkflowExecutionError:
        print("RESULT failed")
"""


def test_a_correction_reaches_what_has_to_run_and_nothing_else(tmp_path: Path):
    ran, storage = tmp_path / "ran", str(tmp_path / "storage")

    def run(*edits: tuple[str, str]) -> tuple[str, list[str]]:
        source = SCRIPT
        for old, new in edits:
            assert source.count(old) == 1
            source = source.replace(old, new)
        ran.write_text("")
        folder = tmp_path / str(len(edits))
        folder.mkdir()
        source = source.format(ran=str(ran))
        source += MAIN.format(storage=storage)
        program = folder / "program.py"
        program.write_text(source)
        done = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        [answer] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        return answer.removeprefix("RESULT "), ran.read_text().split()

    fix, moved = ('raise ValueError("a bug")', "return len(rows)"), ("LIMIT = 3", "\n\nLIMIT = 3")
    assert run() == ("failed", ["load", "clean", "split", "report"])
    assert run(fix, moved) == ("3", ["report"])
    more = ("\n\nLIMIT = 3", "LIMIT = 4")
    assert run(fix, moved, more) == ("4", ["clean", "split", "report"])
