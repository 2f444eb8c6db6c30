"""Progress in words, and which words are worth a line in a log."""

from sample_records import status_record

from airflow_provider_rayworkflow.workflow.model.progress import Throttle, progress_line
from airflow_provider_rayworkflow.workflow.model.records import (
    FailedAttempt,
    Progress,
    RunningTask,
    StatusRecord,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


def record(progress: Progress | None = None, *, reused: int = 0) -> StatusRecord:
    return status_record(
        WorkflowStatus.RUNNING,
        created_at=1.0,
        tasks_total=7,
        tasks_done=3,
        tasks_reused=reused,
        progress=progress,
    )


def running(*names: str) -> tuple[RunningTask, ...]:
    return tuple(RunningTask(task_id=name, attempt=1, started_at=1.0) for name in names)


def test_without_progress_it_is_how_many_are_done():
    assert progress_line(record()) == "3 of 7 tasks done"
    assert progress_line(record(reused=2)) == "3 of 7 tasks done (2 reused)"


def test_running_waiting_and_failed_tasks_are_named():
    retried = (FailedAttempt(task_id="c", attempt=1, error="ValueError: boom"),)
    progress = Progress(
        at=1.0, submitted=3, running_total=2, running=running("a", "b"), retried=retried
    )
    assert progress_line(record(progress)) == (
        "3 of 7 tasks done, 2 running (a, b), 1 waits for a worker or just began, "
        "1 tried again (c: ValueError: boom)"
    )


def test_a_few_of_many_running_tasks_are_named():
    progress = Progress(at=1.0, submitted=90, running_total=80, running=running("a", "b", "c", "d"))
    assert progress_line(record(progress)) == (
        "3 of 7 tasks done, 80 running (a, b, c, 77 more), 10 wait for a worker or just began"
    )


def test_tasks_that_wait_for_limits_are_counted_by_limit():
    limited = {"vendor_api": 12, "database, vendor_api": 1}
    assert progress_line(record(Progress(at=1.0, limited=limited))) == (
        "3 of 7 tasks done, 12 wait for the limit vendor_api, "
        "1 waits for the limit database, vendor_api"
    )


def test_long_names_are_shown_by_their_ends():
    names = running("a_package.of_mine.pipelines.etl.<locals>.extract_3")
    assert progress_line(record(Progress(at=1.0, submitted=1, running_total=1, running=names))) == (
        "3 of 7 tasks done, 1 running (…pipelines.etl.<locals>.extract_3)"
    )


def due_at(seconds: list[float]) -> list[float]:
    throttle = Throttle()
    return [now for now in seconds if throttle.is_due(f"line of {now}", now)]


def test_the_first_line_is_written_at_once_and_the_next_after_ten_seconds():
    assert due_at([0.0, 2.0, 9.0, 10.0, 15.0, 20.0]) == [0.0, 10.0, 20.0]


def test_after_an_hour_it_is_a_line_a_minute():
    assert due_at([0.0, 3600.0, 3630.0, 3660.0]) == [0.0, 3600.0, 3660.0]


def test_an_equal_line_is_not_written_again():
    throttle = Throttle()
    assert throttle.is_due("same", 0.0)
    assert not throttle.is_due("same", 1000.0)
