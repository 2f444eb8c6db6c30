"""What a task prints and logs is found out: by Python's streams, by logging, and by descriptors."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_task_log import task_log  # type: ignore[import-not-found]

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    level, handlers = logging.getLogger().level, logging.getLogger().handlers[:]
    yield
    log_capture.uninstall()
    logging.getLogger().setLevel(level)
    logging.getLogger().handlers[:] = handlers


@contextmanager
def into(given: TaskLog, *, alone: bool = False) -> Iterator[None]:
    log_capture.install()  # in the test itself: pytest replaces the streams before
    with log_capture.alone(given, "w@load") if alone else log_capture.into(given):
        yield


def lines(given: TaskLog) -> list[tuple[str, str]]:
    sent = given.rest()
    return [] if sent is None else [(line.level, line.text) for line in sent.lines]


def test_prints_and_messages_come_in_order_at_their_levels(capsys: pytest.CaptureFixture[str]):
    given = task_log()
    logging.getLogger().setLevel(logging.INFO)
    with into(given):
        print("one")
        logging.getLogger("author").warning("two %s", 2)
        print("three", file=sys.stderr)
        logging.info("four")
        logging.debug("not wanted")
    print("outside")
    assert lines(given) == [
        ("INFO", "one"),
        ("WARNING", "two 2"),
        ("INFO", "three"),
        ("INFO", "four"),
    ]
    assert capsys.readouterr().out == "one\noutside\n"


def test_a_traceback_is_one_line_of_the_log():
    given = task_log()
    with into(given):
        try:
            raise KeyError("x")
        except KeyError:
            logging.exception("It failed")
    ((level, text),) = lines(given)
    assert level == "ERROR"
    assert text.startswith("It failed\nTraceback")
    assert text.endswith("KeyError: 'x'")


@pytest.mark.parametrize("is_root", [True, False])
def test_what_the_authors_handler_prints_counts_once_at_its_level(is_root: bool):
    given = task_log()
    logger = logging.getLogger(None if is_root else "author.handled")
    log_capture.install()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        with into(given):
            logger.error("bad")
            logger.warning("careful")
    finally:
        logger.removeHandler(handler)
    texts = ("bad", "careful") if is_root else ("ERROR bad", "WARNING careful")
    assert lines(given) == list(zip(("ERROR", "WARNING"), texts, strict=True))


def test_our_own_messages_are_no_output_of_the_task():
    given = task_log()
    ours = get_logger("airflow_provider_rayworkflow.workflow.some")
    log_capture.install()
    handler = logging.StreamHandler(sys.stderr)
    ours.addHandler(handler)
    try:
        with into(given):
            ours.warning("Task status [RUNNING]")
    finally:
        ours.removeHandler(handler)
    assert lines(given) == []


def test_an_argument_whose_text_raises_does_no_harm(monkeypatch: pytest.MonkeyPatch):
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    given = task_log()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with into(given):
        logging.warning("%s", Hostile())
        print("goes on")
    assert lines(given) == [("INFO", "goes on")]


def test_threads_of_several_tasks_are_told_apart():
    logs = [task_log() for _ in range(3)]

    def work(number: int) -> None:
        with into(logs[number]):
            for _ in range(100):
                print(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, given in enumerate(logs):
        assert lines(given) == [("INFO", str(number))] * 100


def test_a_task_that_is_alone_has_its_threads_output(capsys: pytest.CaptureFixture[str]):
    given = task_log()
    with into(given, alone=True):
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
    assert lines(given) == [("INFO", "from a thread")]


def test_streams_are_put_back_as_they_were():
    log_capture.uninstall()
    before = sys.stdout, sys.stderr, logging.getLogger().handlers[:]
    log_capture.install()
    log_capture.install()
    assert sys.stdout is not before[0]
    assert sys.stdout.encoding == before[0].encoding
    log_capture.uninstall()
    assert (sys.stdout, sys.stderr, logging.getLogger().handlers[:]) == before


# ---- as in a worker of Ray, whose standard output is a file

PROGRAM = """
import logging, os, subprocess, sys, threading
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from test_task_log import RUN
sys.stdout.reconfigure(line_buffering=True)
log_capture.install(descriptors=True)
print("before the task")
os.write(1, b"of an earlier task, \\xc3")
log_capture.label_output("workflow tasks")
task_log = TaskLog(RUN)
with log_capture.alone(task_log, "w@load"):
    print("one", flush=False)
    os.write(1, b"two, by a library\\n")
    logging.info("three")
    subprocess.run(["echo", "four, by a process"])
    sys.stderr.write("five\\n")
    os.write(1, "sechs \\u00e9\\n".encode())
    print("seven")
    os.write(2, b"a part")
print("after the task")
with open(sys.argv[1], "w") as file:
    file.write("|".join(line.text for line in task_log.rest().lines))
"""


FORKING = """
import logging, multiprocessing, os, signal, sys
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from test_task_log import RUN
log_capture.install(descriptors=True)
task_log = TaskLog(RUN)

def work():
    signal.alarm(20)
    print("printed by a child")
    logging.info("logged by a child")

with log_capture.alone(task_log, "w@load"):
    with task_log._lock:  # as by another thread, just then
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
    logging.info("logged by the task")
with open(sys.argv[1], "w") as file:
    file.write("|".join(line.text for line in task_log.rest().lines))
"""


CLOSING = """
import os, sys
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from test_task_log import RUN
log_capture.install(descriptors=True)
log_capture.label_output("w@first")
with log_capture.alone(TaskLog(RUN)):
    sys.stdout.close()
    sys.stdout = sys.stderr = None
log_capture.label_output("w@second")
task_log = TaskLog(RUN)
with log_capture.alone(task_log):
    os.write(2, b"by a library")
with open(sys.argv[1], "w") as file:
    file.write("|".join(line.text for line in task_log.rest().lines))
"""


def test_a_task_that_closes_and_replaces_the_streams_does_no_harm_to_the_next_one(tmp_path: Path):
    assert run_as_worker(CLOSING, tmp_path) == ["by a library"]
    assert (tmp_path / "err").read_text() == ":task_name:w@first\n:task_name:w@second\nby a library"


SEVERAL = """
import os, sys
from airflow_provider_rayworkflow.workflow.runtime.worker import log_capture
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from test_task_log import RUN
log_capture.install(descriptors=True)
log_capture.label_output("workflow tasks")

def run(name, work):
    task_log = TaskLog(RUN)
    with log_capture.alone(task_log, name):
        work()
    lines = task_log.rest()
    return [] if lines is None else [f"{name}: {line.text}" for line in lines.lines]

def prints():
    os.write(1, b"by a library\\n")
    print("by Python")
    print("again")

found = run("silent", lambda: None) + run("printing", prints)
found += run("foreign", lambda: os.write(1, b"by a library \\xc3"))
found += run("last", lambda: os.write(1, b"\\xa9 begins anew"))
with open(sys.argv[1], "w") as file:
    file.write("|".join(found))
"""


def test_short_tasks_are_labelled_where_they_print_and_each_has_its_own_output(tmp_path: Path):
    assert run_as_worker(SEVERAL, tmp_path) == [
        "printing: by a library",
        "printing: by Python",
        "printing: again",
        "foreign: by a library",
        "last: � begins anew",
    ]
    out = (tmp_path / "out").read_text(errors="replace")
    assert out.replace("\n", "|").startswith(
        ":task_name:workflow tasks|by a library|:task_name:printing|by Python|again|"
        ":task_name:workflow tasks|by a library"
    )
    assert (tmp_path / "err").read_text() == ":task_name:workflow tasks\n"


def test_a_worker_has_what_forked_processes_print_and_log_and_they_wait_for_no_lock(tmp_path: Path):
    assert sorted(run_as_worker(FORKING, tmp_path)) == [
        "logged by a child",
        "logged by the task",
        "printed by a child",
    ]


def run_as_worker(program: str, folder: Path) -> list[str]:
    """Run a program whose standard output is a file; what it leaves of its task's log."""
    with (folder / "out").open("ab") as stdout, (folder / "err").open("ab") as stderr:
        subprocess.run(
            [sys.executable, "-c", program, str(folder / "lines")],
            stdout=stdout,
            stderr=stderr,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
            },
        )
    return (folder / "lines").read_text().split("|")


def test_a_worker_has_what_libraries_and_processes_print_each_once(tmp_path: Path):
    found = run_as_worker(PROGRAM, tmp_path)
    assert sorted(found) == sorted(
        [
            "one",
            "two, by a library",
            "three",
            "four, by a process",
            "five",
            "sechs é",
            "seven",
            "a part",
        ]
    )
    python = [text for text in found if text in ("one", "three", "five", "seven")]
    assert python == ["one", "three", "five", "seven"]
    assert found.index("one") < found.index("two, by a library") < found.index("seven")
    # Ray's files have all of it, as before.
    out = (tmp_path / "out").read_bytes()
    begin = b"before the task\nof an earlier task, \xc3:task_name:workflow tasks\n"
    assert out.startswith(begin + b":task_name:w@load\none\n")
    assert out.endswith(b"seven\n:task_name:workflow tasks\nafter the task\n")
    assert b"two, by a library" in out


def test_a_pipe_is_no_file(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    try:
        assert log_capture._Descriptor.of(writing) is None
    finally:
        os.close(reading)
        os.close(writing)


def test_a_stream_that_is_closed_does_no_harm_to_the_log():
    given = task_log()
    stream = io.StringIO()
    captured = log_capture._Stream("stdout", stream, None)  # type: ignore[arg-type]
    with into(given):
        captured.write("a\n")
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            captured.write("b\n")
    assert lines(given) == [("INFO", "a"), ("INFO", "b")]
