"""``rayworkflow logs``: from the storage alone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys, open_store

RECORD = status_record(WorkflowStatus.SUCCESSFUL, number=1)


class Stored:
    def __init__(self, path: Path) -> None:
        self.store = WorkflowStore(open_store(str(path)))
        self.arguments = ["--storage", str(path)]
        self.number = 0

    def write(
        self, *texts: str, task_id: str = "load", level: str = "INFO", attempt: int = 1
    ) -> str:
        self.number += 1
        lines = [LogLine(1_764_000_000.25, level, task_id, attempt, text) for text in texts]  # type: ignore[arg-type]
        put = self.store.logs.put("w", 1, self.number, lines)
        self.store.bytes.put(put.key, put.data)
        return put.key


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    stored = Stored(tmp_path)
    stored.store.write_status(RECORD)
    return stored


def test_lines_have_time_level_and_task(stored: Stored, capsys: pytest.CaptureFixture[str]):
    stored.write("hello")
    stored.write("careful\nTraceback", level="WARNING", attempt=2)
    stored.write("[a note]", task_id="", attempt=0)
    assert main(["logs", "w", *stored.arguments]) == 0
    assert capsys.readouterr().out == (
        "2025-11-24 16:00:00.250 INFO     load: hello\n"
        "2025-11-24 16:00:00.250 WARNING  load (attempt 2): careful\nTraceback\n"
        "2025-11-24 16:00:00.250 INFO     [a note]\n"
    )


def test_lines_of_one_task(stored: Stored, capsys: pytest.CaptureFixture[str]):
    stored.write("a")
    stored.write("b", task_id="clean")
    assert main(["logs", "w", "--task", "clean", *stored.arguments]) == 0
    assert capsys.readouterr().out.endswith("clean: b\n")


def test_json_has_all_fields(stored: Stored, capsys: pytest.CaptureFixture[str]):
    stored.write("a")
    assert main(["logs", "w", "--json", *stored.arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"at": 1_764_000_000.25, "level": "INFO", "task_id": "load", "attempt": 1, "text": "a"}
    ]


def test_a_damaged_piece_is_named_and_the_rest_is_shown(
    stored: Stored, capsys: pytest.CaptureFixture[str]
):
    stored.write("a")
    key = stored.write("b")
    stored.write("c")
    stored.store.bytes.put(key, b"x")
    assert main(["logs", "w", *stored.arguments]) == 1
    out, err = capsys.readouterr()
    assert [line[-1] for line in out.splitlines()] == ["a", "c"]
    assert key in err


def test_hostile_text_reaches_no_terminal(stored: Stored, capsys: pytest.CaptureFixture[str]):
    stored.write("\x1b[2Jx", task_id="a\nb\x07")
    main(["logs", "w", *stored.arguments])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\nb\\x07: \\x1b[2Jx" in out


def test_an_unknown_workflow_is_an_error(stored: Stored, capsys: pytest.CaptureFixture[str]):
    assert main(["logs", "other", *stored.arguments]) == 1
    assert "There is no workflow 'other'" in capsys.readouterr().err


def test_follow_and_json_do_not_go_together(stored: Stored, capsys: pytest.CaptureFixture[str]):
    assert main(["logs", "w", "--json", "--follow", *stored.arguments]) == 1
    assert "Leave --follow or --json out" in capsys.readouterr().err


def test_following_ends_with_the_workflow_and_has_each_line_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stored = Stored(tmp_path)
    running = status_record(WorkflowStatus.RUNNING)
    stored.store.leases.write(lease())
    stored.store.write_status(running)
    stored.write("0")

    def run() -> None:
        for number in range(1, 6):
            time.sleep(0.05)
            stored.write(str(number))
        stored.store.write_status(RECORD, replaces=running)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert main(["logs", "w", "--follow", "--interval", "0.02", *stored.arguments]) == 0
    finally:
        thread.join()
    assert [line[-1] for line in capsys.readouterr().out.splitlines()] == list("012345")
    assert keys.logs_folder("w").endswith("/w")
