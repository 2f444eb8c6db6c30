"""What the command prints into a terminal, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import FAILURE, Root, committed, printed, refused, root  # noqa: F401 the fixture

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped, one_line
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput

PACKAGE = Path(__file__).parents[2] / "airflow_provider_rayworkflow"
PROGRAM = [sys.executable, "-m", "airflow_provider_rayworkflow.workflow.cli"]

#: What a terminal obeys, or no encoding takes.
OBEYED = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;title\x07",
    "a link": "\x1b]8;;http://x\x1b\\text",
    "one byte": "\x9b31m",
    "a carriage return": "all is well\rbad",
    "backspaces": "bad\x08\x08\x08ok",
    "NUL": "a\0b",
    "DEL": "a\x7fb",
    "right to left": "user\u202etxt.exe",
    "an isolate": "a\u2067b\u2069",
    "a mark": "a\u200fb\u061c",
    "a line separator": "a\u2028b\u2029c",
    "half a character": "a\udce9b\ud83d",
}
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.mark.parametrize("text", OBEYED.values(), ids=OBEYED)
@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "w"),
        ("status", "w", "--task", "fit"),
        ("graph", "w"),
        ("watch", "w", "--once"),
        ("output", "done"),
        ("output", "missing"),
        ("list", "--bad"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_command_prints_what_a_terminal_obeys(
    root: Root,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    text: str,
    arguments: tuple[str, ...],
    as_json: bool,
):
    failure = replace(FAILURE, type=text, message=text, traceback=f"Traceback\n{text}")
    root.add("w", "FAILED", failure=failure, user_metadata={text: text})
    root.add("done", "SUCCESSFUL", output=JsonOutput(value=f"{text}\nand\tmore"))
    given = [text if word == "--bad" else word for word in arguments]
    with contextlib.suppress(SystemExit):
        main([*given, *(["--json"] if as_json else [])])
    out, err = capsys.readouterr()
    assert out or err
    assert not RAW.search(out + err)


def test_a_row_of_a_table_is_one_line(root: Root, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    failure = replace(FAILURE, message="boom\nstatus  SUCCESSFUL")
    root.add("w", "FAILED", failure=failure)
    assert "\nstatus  SUCCESSFUL" not in printed(capsys, "status", "w").partition("\n\n")[0]


def test_text_that_only_people_read_is_left_as_it_is():
    text = "naïve café\t東京\u3000駅 👩\u200d🚀 100\xa0km\nline"
    assert escaped(text) == text
    assert one_line("a\nb\tc\\") == "a\\nb\\tc\\"


def test_no_log_line_has_what_a_terminal_obeys(caplog: pytest.LogCaptureFixture):
    log = get_logger("airflow_provider_rayworkflow.of_this_test")
    for text in OBEYED.values():
        log.warning("Workflow %s: %s", text, ValueError(text))
        log.warning(f"{text} 100%")
    assert len(caplog.messages) == 2 * len(OBEYED)
    assert not any(RAW.search(message) for message in caplog.messages)
    try:
        raise ValueError(OBEYED["a colour"])
    except ValueError:
        log.exception("It failed")
    assert "ValueError: \\x1b[31mred" in (caplog.records[-1].exc_text or "")
    log.warning("%d of %s", 1, "two")
    assert caplog.records[-1].args == (1, "two")


def test_all_our_loggers_are_of_that_kind():
    made_otherwise = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "logging.getLogger(__name__)" in path.read_text()
    ]
    assert made_otherwise == []
    import airflow_provider_rayworkflow.workflow.offline.prune as module

    assert module.log.filters
    assert isinstance(module.log, logging.Logger)


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_an_ascii_terminal_shows_the_whole_list(root: Root, environment: dict[str, str]):  # noqa: F811
    for workflow_id in ("a", "käse", "z"):
        root.add(workflow_id, "SUCCESSFUL")
    done = subprocess.run(
        [*PROGRAM, "list"],
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **environment},
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] in (
        [b"a", b"k\\xe4se", b"z"],
        [b"a", "käse".encode(), b"z"],
    )


@pytest.mark.parametrize("moment", ["at its imports", "while it watches"])
def test_ctrl_c_ends_the_command_with_one_line(root: Root, moment: str, tmp_path: Path):  # noqa: F811
    root.add("w", "RUNNING")
    root.add_lease("m1")
    environment = dict(os.environ)
    if moment == "at its imports":
        # The first module that only the commands need tells that it is there, and waits.
        (tmp_path / "argparse.py").write_text(
            "import time\nprint('here', flush=True)\ntime.sleep(100)\n"
        )
        environment["PYTHONPATH"] = str(tmp_path)
    running = subprocess.Popen(
        [*PROGRAM, "watch", "w"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "rayworkflow: interrupted\n")


def test_a_closed_pipe_is_quiet_and_keeps_the_exit_code_of_a_problem(root: Root):  # noqa: F811
    root.add("w", "SUCCESSFUL")
    for arguments in (["list"], ["watch", "w"], ["graph", "w", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=120
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "status", "no"], stdout=writing, stderr=writing, timeout=120)
    os.close(writing)
    assert done.returncode == 1


def test_a_full_disk_is_one_line(root: Root):  # noqa: F811
    root.add("w", "SUCCESSFUL")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["rayworkflow: [Errno 28] No space left on device"]


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["status", "w"],
        ["watch", "w"],
        ["graph", "w"],
        ["output", "w"],
        ["plan", "w"],
        ["fork", "w", "new"],
        ["prune", "--older-than", "0s"],
        ["cancel", "w"],
        ["resume-all"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_storage_that_is_not_there_is_an_error_and_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], form: str
):
    missing = tmp_path / "typo"
    assert main([*command, "--storage", form.format(missing)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "There is no folder" in err
    assert "typo" in err
    assert not missing.exists()


@pytest.mark.parametrize(
    "storage",
    [
        "",
        " ",
        "\t",
        "relative",
        "./x",
        "~",
        "file://",
        "file:relative",
        "file://host/x",
        "http://x",
    ],
)
def test_text_that_names_no_storage_is_refused(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [*PROGRAM, "list", "--storage", storage], capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "storage" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
