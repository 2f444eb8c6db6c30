"""``rayworkflow plan`` and ``rayworkflow fork``: on the storage alone, nothing is run."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError

PIPELINE = """
import ray
from airflow_provider_rayworkflow import workflow

def named(name, function):
    return ray.remote(function).options(**workflow.options(task_id=name))

def load(day): return [day]
def clean(rows, factor): return [row * factor for row in rows]
def report(rows): raise ValueError("a bug")

def daily(day=1, factor=2):
    rows = named("clean", clean).bind(named("load", load).bind(day), factor)
    return named("report", report).bind(rows)
"""
FIXED = PIPELINE.replace('raise ValueError("a bug")', "return sum(rows)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", str(tmp_path / "storage"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    import pipeline  # type: ignore[import-not-found]

    with (
        testing.in_process(str(tmp_path / "storage")) as workflows,
        pytest.raises(WorkflowExecutionError),
    ):
        workflows.run(pipeline.daily(), workflow_id="daily")
    del sys.modules["pipeline"]
    yield tmp_path
    sys.modules.pop("pipeline", None)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_the_plan_of_a_resume_is_of_the_stored_graph(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "plan", "daily") == textwrap.dedent("""\
        daily FAILED: 2 tasks reused, 0 changed, 0 new, 0 dropped, 1 not finished before

        TASK    ACTION  WHY
        load    reuse   its inputs are the same
        clean   reuse   its inputs are the same
        report  run     it failed
        """)
    assert "clean   run     restarted from it" in printed(
        capsys, "plan", "daily", "--from-task", "clean"
    )


def test_the_plan_of_a_run_compares_the_graph_that_a_function_returns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pipeline.py").write_text(
        FIXED.replace('"load", load', '"read", load').replace("[day]", "[day] + [0]")
    )
    call = ("plan", "daily", "--workflow", "pipeline:daily", "--arguments", '{"day": 1}')
    value: Any = json.loads(printed(capsys, *call, "--json"))
    assert value["counts"] == {
        "reused": 0,
        "checked": 1,
        "changed": 0,
        "new": 1,
        "unfinished": 1,
        "dropped": 1,
    }
    assert [(task["task_id"], task["action"], task["reason"]) for task in value["tasks"]] == [
        ("read", "run", "it is new"),
        ("clean", "check", "it takes what may change: read"),
        ("report", "run", "it failed"),
    ]
    assert value["dropped"] == ["load"]
    assert (value["status"], value["on_change"]) == ("FAILED", "reuse")


def test_the_table_says_that_a_run_would_be_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("plan", "daily", "--workflow", "pipeline:daily", "--arguments", '{"factor": 3}')
    assert printed(capsys, *call, "--on-change", "refuse") == textwrap.dedent("""\
        daily FAILED: 1 task reused, 1 changed, 0 new, 0 dropped, 1 not finished before
        A run is refused, as on_change is "refuse" for what has changed: clean.

        TASK    ACTION  WHY
        load    reuse   its inputs are the same
        clean   run     its arguments have changed
        report  run     it failed
        """)
    assert "refused" not in printed(capsys, *call)


def test_planning_starts_no_ray_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("storage/**/*"))
    program = """
from airflow_provider_rayworkflow.workflow.cli import main
import sys
assert main(["plan", "daily"]) == 0
assert "ray" not in sys.modules
assert main(["plan", "daily", "--workflow", "pipeline:daily"]) == 0
import ray
assert not ray.is_initialized()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert sorted(folder.rglob("storage/**/*")) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["missing"], "missing"),
        (["daily", "--from-task", "tidy"], "no task 'tidy' to restart from"),
        (["daily", "--workflow", "pipeline:weekly"], "has no 'weekly'"),
        (["daily", "--workflow", "pipeline:daily", "--arguments", '{"week": 1}'], "['week']"),
        (["daily", "--arguments", '{"day": 1}'], "--workflow, which is not given"),
    ],
)
def test_a_plan_that_can_not_be_made_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert problem in refused(capsys, "plan", *arguments)


def test_a_fork_needs_no_cluster(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "fork", "daily", "again", "--from-task", "clean") == (
        "again is RESUMABLE\n"
    )
    assert "load    reuse   its inputs are the same" in printed(capsys, "plan", "again")
    assert "already exists" in refused(capsys, "fork", "daily", "again")
