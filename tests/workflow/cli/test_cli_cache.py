"""``rayworkflow cache``, and where other commands say that a result is from the cache."""

from __future__ import annotations

import json

import effects
import pytest

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.cli import main


@workflow.task(cache=workflow.Cache())
def load(day: str) -> str:
    effects.note("load")
    return f"rows of {day}"


@workflow.task(cache=workflow.Cache())
def clean(rows: str) -> str:
    effects.note("clean")
    return rows.strip()


@pytest.fixture
def storage(
    fresh: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> str:
    folder = str(tmp_path_factory.mktemp("storage"))
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", folder)
    with testing.in_process(folder) as workflows:
        for name in ("first", "second"):
            workflows.run(clean(load("1")), workflow_id=name)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_results_are_listed(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "cache")
    assert "test_cli_cache.load" in text
    assert "first" in text
    assert "2 results with" in text
    found = json.loads(printed(capsys, "cache", "list", "--json", "--task", "load"))
    assert [(one["workflow_id"], one["task_id"]) for one in found] == [("first", "load")]


def test_results_are_dropped(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 results with" in printed(capsys, "cache", "drop", "--task", "load", "--dry-run")
    assert "would be dropped" in printed(capsys, "cache", "drop", "--all", "--dry-run")
    assert "1 results with" in printed(capsys, "cache", "drop", "--task", "load")
    assert "0 results with" in printed(capsys, "cache", "drop", "--older-than", "1d")
    assert "1 results with" in printed(capsys, "cache", "drop", "--all")
    assert printed(capsys, "cache") == "0 results with 0 bytes are kept.\n"
    assert printed(capsys, "output", "second") == "rows of 1\n"


def test_drop_asks_which_ones(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "drop"]) == 1
    assert "Say which results to drop" in capsys.readouterr().err
    assert "2 results" in printed(capsys, "cache")


def test_a_graph_and_a_log_say_what_was_taken(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cached" not in printed(capsys, "graph", "first")
    assert printed(capsys, "graph", "second").count("cached") == 2
    assert "from the cache: task load of workflow first" in printed(capsys, "logs", "second")


def test_a_plan_says_what_may_be_taken(storage: str) -> None:
    with testing.in_process(storage) as workflows:
        tasks = {task.task_id: task for task in workflows.plan(clean(load("2")), "third").tasks}
        restarted = workflows.plan(clean(load("1")), "first", from_task="load").tasks
    assert {task.reason for task in tasks.values()} == {
        "it has no checkpoint yet; it may be taken from the cache"
    }
    assert [task.reason for task in restarted] == [
        "restarted from it",
        "restarted from load",
    ]
