"""``rayworkflow watch``: in a pipe, in a terminal, and to the end."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from sample_records import status_record
from test_cli import FAILURE, Root, root  # noqa: F401 the fixture

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.cli.commands.watch import picture, watch
from airflow_provider_rayworkflow.workflow.model.records import (
    FailedAttempt,
    Progress,
    ReuseCounts,
    RunningTask,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

PROGRESS = Progress(
    at=1_100.0,
    submitted=2,
    running_total=1,
    running=(RunningTask(task_id="clean", attempt=2, started_at=1_030.0, node="pod-7"),),
    retried=(
        FailedAttempt(
            task_id="fit", attempt=1, error="ValueError: no flights", note="retry pays, 2 of 3 left"
        ),
    ),
)
RUNNING = status_record(
    WorkflowStatus.RUNNING,
    manager_id="m1",
    created_at=1_000.0,
    started_at=1_000.0,
    tasks_total=3,
    tasks_done=1,
    progress=PROGRESS,
)
DONE = replace(
    RUNNING, status=WorkflowStatus.SUCCESSFUL, ended_at=1_125.0, tasks_done=3, progress=None
)


def test_the_picture_shows_what_was_found_of_earlier_runs():
    assert picture(replace(DONE, reuse=ReuseCounts(reused=2)), 1_200.0)[2:] == [
        "went on: 2 tasks reused, 0 changed, 0 new, 0 dropped"
    ]


def test_the_picture_shows_progress_and_what_runs_where():
    assert picture(RUNNING, 1_100.0) == [
        "w  RUNNING  1 min 40 s",
        "[##########....................]  1 of 3 tasks done, 1 running (clean), "
        "1 waits for a worker or just began, 1 tried again (fit: ValueError: no flights)",
        "",
        "clean  attempt 2  1 min 10 s  pod-7",
        "fit: attempt 1 failed: ValueError: no flights (application; retry pays, 2 of 3 left)",
    ]


def test_the_picture_shows_long_names_by_their_ends():
    name = "a_package.of_mine.pipelines.etl.<locals>.extract_3"
    task = RunningTask(task_id=name, attempt=1, started_at=1_030.0, node="pod-7")
    failed = FailedAttempt(task_id=name, attempt=1, error="E", note="n")
    progress = replace(PROGRESS, running=(task,), retried=(failed,))
    assert picture(replace(RUNNING, progress=progress), 1_100.0)[3:] == [
        "…pipelines.etl.<locals>.extract_3  attempt 1  1 min 10 s  pod-7",
        "…pipelines.etl.<locals>.extract_3: attempt 1 failed: E (application; n)",
    ]


def test_the_picture_of_a_failed_one_ends_with_its_traceback():
    failed = replace(DONE, status=WorkflowStatus.FAILED, tasks_done=2, failure=FAILURE)
    assert picture(failed, 1_200.0)[2:] == [
        "",
        "fit: ValueError: no flights",
        "Traceback …",
        "ValueError",
    ]


def test_into_a_pipe_goes_a_line_for_each_change_until_the_end():
    looks = iter([RUNNING, RUNNING, DONE])
    out = io.StringIO()
    assert watch(lambda: next(looks), interval_s=0.0, once=False, out=out) is DONE
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        "w RUNNING: 1 of 3 tasks done",
        "w SUCCESSFUL: 3 of 3 tasks done",
    ]


def test_a_workflow_that_is_deleted_meanwhile_ends_the_watch():
    looks = iter([RUNNING, None])
    with pytest.raises(LookupError, match="deleted"):
        watch(lambda: next(looks), interval_s=0.0, once=False, out=None)


def test_watch_draws_each_picture_over_the_last_one_and_escapes_texts(root):  # noqa: F811
    root.add("w", "RUNNING", started_at=1_000.0, tasks_total=3, progress=PROGRESS)
    root.add_lease("m1")
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "airflow_provider_rayworkflow.workflow.cli"]
    process = subprocess.Popen(
        [*command, "watch", "w", "--interval", "0.05"],
        stdout=terminal,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "80", "LINES": "24"},
    )
    os.close(terminal)
    shown = read_until(master, b"pod-7")
    record = root.store.read_status("w")
    hostile = replace(FAILURE, message="\x1b[2Jgone")
    ended = replace(record, status=WorkflowStatus.FAILED, number=1, failure=hostile, progress=None)
    root.store.write_status(ended, replaces=record)
    shown += read_until(master, b"ValueError: ")
    assert process.wait(timeout=30) == 1
    assert b"\x1b[5A" in shown  # over the five lines of the picture before
    assert b"\x1b[2J" not in shown


def read_until(master: int, text: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 60
    while text not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(master, 4096)
    return shown


@pytest.mark.parametrize(("status", "code"), [("SUCCESSFUL", 0), ("CANCELED", 1)])
def test_its_exit_code_says_whether_the_workflow_was_successful(root, capsys, status, code):  # noqa: F811
    root.add("w", status, tasks_total=3, tasks_done=3, ended_at=1_010.0)
    assert main(["watch", "w"]) == code
    assert capsys.readouterr().out == f"w {status}: 3 of 3 tasks done\n"


def test_once_looks_once_and_is_well_with_what_it_sees(root, capsys):  # noqa: F811
    root.add("w", "RUNNING", tasks_total=3, progress=PROGRESS)
    root.add_lease("m1")
    assert main(["watch", "w", "--once"]) == 0
    assert capsys.readouterr().out.startswith("w RUNNING: 0 of 3 tasks done, 1 running (clean)")


def test_status_has_the_progress_of_a_running_one(root, capsys):  # noqa: F811
    root.add("w", "RUNNING", tasks_total=3, tasks_done=1, progress=PROGRESS)
    root.add_lease("m1")
    assert main(["status", "w"]) == 0
    assert "progress  1 of 3 tasks done, 1 running (clean)" in capsys.readouterr().out
