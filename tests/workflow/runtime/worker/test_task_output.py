"""The end of what a task printed, which is kept with its checkpoint or beside its error."""

import os
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.model.records import Result, TaskFailure, TaskTimes
from airflow_provider_rayworkflow.workflow.runtime.worker.task_output import KEPT_BYTES, Printed
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Continued, Raised, Returned

TIMES = TaskTimes(started_at=1.0, ended_at=2.0, attempt=1)


@pytest.fixture
def descriptor(tmp_path: Path):
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def test_only_what_comes_later_counts(descriptor: int):
    os.write(descriptor, b"an earlier task\n")
    printed = Printed([descriptor])
    os.write(descriptor, b":task_name:w@a\nhello\n")
    assert printed.tail() == "hello\n"


def test_the_last_lines_of_much_output_are_kept(descriptor: int):
    printed = Printed([descriptor])
    os.write(descriptor, b"".join(b"line %04d\n" % number for number in range(1000)))
    lines = printed.tail().splitlines()
    assert (lines[0], lines[-1]) == ("…", "line 0999")
    assert len(printed.tail()) < KEPT_BYTES + 10


def test_a_pipe_tells_nothing():
    reading, writing = os.pipe()
    try:
        assert Printed([writing]).tail() == ""
    finally:
        os.close(reading)
        os.close(writing)


def test_it_stands_beside_an_error(descriptor: int):
    printed = Printed([descriptor])
    os.write(descriptor, b"about to divide\n")
    raised = Raised(
        failure=TaskFailure(task_id="a", type="E", message="", traceback=""),
        exception=b"",
        retryable=True,
        times=TIMES,
    )
    completion = printed.beside(raised)
    assert isinstance(completion, Raised)
    assert completion.failure.output == "about to divide\n"


@pytest.mark.parametrize(
    "completion",
    [
        Returned(result=Result(inline=b"1"), times=TIMES),
        Continued(graph=b"", times=TIMES),
    ],
)
def test_it_goes_with_a_result(descriptor: int, completion: Returned | Continued):
    printed = Printed([descriptor])
    assert printed.beside(completion) is completion
    os.write(descriptor, b"27,004 rows\n")
    assert printed.beside(completion).printed == "27,004 rows\n"
