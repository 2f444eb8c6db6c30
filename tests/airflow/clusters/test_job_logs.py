"""A job's output comes into the task's log while it runs, each line once, up to a limit."""

from collections.abc import AsyncIterator, Iterator

from airflow_provider_rayworkflow.clusters.job_logs import JobLog
from airflow_provider_rayworkflow.exceptions import RayWorkflowUnreachableError


class Job:
    """A job's output; each connection gives it from the beginning, and may break off."""

    def __init__(self, *connections: list[str | Exception]) -> None:
        self._connections: Iterator[list[str | Exception]] = iter(connections)

    async def tail(self, submission_id: str) -> AsyncIterator[str]:
        for text in next(self._connections):
            if isinstance(text, Exception):
                raise text
            yield text


def copied(job: Job, **options: int) -> list[str]:
    written: list[str] = []
    log = JobLog("j", job.tail, write=written.append, first_wait_s=0.0, **options)
    log.start()
    log.finish(30)
    return written


def test_lines_are_put_together_from_what_comes():
    assert copied(Job(["one\ntw", "o\n", "\nthree"])) == ["one", "two", "three"]


def test_a_broken_connection_repeats_nothing():
    broken = ["one\ntwo\nthr", RayWorkflowUnreachableError("reset")]
    again = ["one\ntwo\n", "three\nfour\n", RayWorkflowUnreachableError("closed")]
    assert copied(Job(broken, again, ["one\ntwo\nthree\nfour\nfive"])) == [
        "one",
        "two",
        "three",
        "four",
        "five",
    ]


def test_the_output_is_cut_off_at_the_limit():
    assert copied(Job(["12345\n", "12345\n", "12345\n"]), max_characters=10) == [
        "12345",
        "12345",
        "[the rest of the output is on Ray's dashboard, job j]",
    ]


def test_an_error_of_another_kind_ends_the_copying_only(caplog):
    assert copied(Job(["one\n", KeyError("x")])) == ["one"]
    assert "can't be copied" in caplog.text


def test_finish_does_not_wait_for_ever():
    import asyncio

    async def endless(submission_id: str) -> AsyncIterator[str]:
        yield "one\n"
        await asyncio.Event().wait()

    written: list[str] = []
    log = JobLog("j", endless, write=written.append)
    log.start()
    while not written:
        pass
    log.finish(0.05)
    assert not log._thread.is_alive()
