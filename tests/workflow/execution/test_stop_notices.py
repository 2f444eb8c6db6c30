"""An attempt that listens is told first and stopped when its grace is over; any other at once."""

from __future__ import annotations

import asyncio

from airflow_provider_rayworkflow.workflow.execution.stop_notices import StopNotices
from airflow_provider_rayworkflow.workflow.model.graph import Shape
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, TaskRun

LONG_S = 3600.0


class NotingRunner:
    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.has_stopped = asyncio.Event()

    def start(self, errand: Errand) -> None: ...

    def stop(self, errand: Errand) -> None:
        self.stopped.append(errand.run.task_id)
        self.has_stopped.set()


def errand(task_id: str, stop_grace_s: float | None = None) -> Errand:
    run = TaskRun(
        *("w", 1, task_id, 1, b"", ((), Shape()), b"", ()),
        checkpoint=True,
        wants_json=False,
        stop_grace_s=stop_grace_s,
    )
    return Errand(run)


async def test_an_attempt_that_does_not_listen_is_stopped_at_once():
    runner = NotingRunner()
    StopNotices(runner).stop(errand("a", LONG_S))
    assert runner.stopped == ["a"]


async def test_an_attempt_that_listens_is_told_and_stopped_when_its_grace_is_over():
    runner = NotingRunner()
    notices, one = StopNotices(runner), errand("a", 0.01)
    told = notices.listen(one)
    notices.stop(one)
    await told
    assert runner.stopped == []
    await runner.has_stopped.wait()
    assert runner.stopped == ["a"]


async def test_the_grace_is_half_a_second_if_the_task_does_not_say():
    runner = NotingRunner()
    notices, one = StopNotices(runner), errand("a")
    notices.listen(one)
    begun = asyncio.get_running_loop().time()
    notices.stop(one)
    await runner.has_stopped.wait()
    assert asyncio.get_running_loop().time() - begun >= 0.5


async def test_a_stop_at_once_waits_for_no_grace_and_a_second_stop_adds_none():
    runner = NotingRunner()
    notices, one = StopNotices(runner), errand("a", LONG_S)
    notices.listen(one)
    notices.stop(one)
    notices.stop(one)
    assert runner.stopped == []
    notices.stop(one, at_once=True)
    assert runner.stopped == ["a"]


async def test_an_attempt_that_ends_in_its_grace_is_not_stopped():
    runner = NotingRunner()
    notices, one, other = StopNotices(runner), errand("a", 0.0), errand("b", 0.0)
    for each in (one, other):
        notices.listen(each)
        notices.stop(each)
    notices.ended(one)
    await runner.has_stopped.wait()
    assert runner.stopped == ["b"]


async def test_a_worker_that_listens_is_told_when_its_attempt_has_ended():
    notices, one = StopNotices(NotingRunner()), errand("a")
    told = notices.listen(one)
    notices.ended(one)
    await told


async def test_a_worker_that_begins_to_listen_after_its_attempt_was_stopped_is_told():
    notices, one = StopNotices(NotingRunner()), errand("a", LONG_S)
    notices.stop(one)
    told = notices.listen(one)  # it began just then, and nothing can kill a thread
    assert not told.done()
    notices.ended(one)
    await told
