"""When a worker tells the manager that an attempt is alive."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.model.graph import Shape
from airflow_provider_rayworkflow.workflow.runtime.worker.heartbeats import Beats, beats_of
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def task_log(heartbeat_timeout_s: float | None = 100.0, *, is_event: bool = False) -> TaskLog:
    run = TaskRun(
        *("w", 1, "a", 1, b"", ((), Shape()), b"", ()),
        checkpoint=True,
        wants_json=False,
        heartbeat_timeout_s=heartbeat_timeout_s,
        is_event=is_event,
    )
    return TaskLog(run)


def test_what_a_task_prints_and_logs_is_a_beat_and_silence_is_none():
    log, clock = task_log(), Clock()
    beats = Beats(log, clock)
    clock.now += 10
    assert not beats.is_due()
    log.print("stdout", "x")
    assert beats.is_due()
    clock.now += 10
    assert not beats.is_due()
    log.log("INFO", "x")
    assert beats.is_due()


def test_the_manager_is_told_ten_times_in_the_limit_at_most():
    log, clock = task_log(100.0), Clock()
    beats = Beats(log, clock)
    told = 0
    for _ in range(100):
        clock.now += 1
        log.beats += 1
        told += beats.is_due()
    assert told == 10


def test_a_beat_that_was_not_told_at_once_is_told_later():
    log, clock = task_log(100.0), Clock()
    beats = Beats(log, clock)
    log.beats += 1
    assert not beats.is_due()
    clock.now += 10
    assert beats.is_due()


def test_a_task_that_saves_for_long_is_not_silent():
    log, clock = task_log(), Clock()
    beats = Beats(log, clock)
    log.is_busy = True
    for _ in range(3):
        clock.now += 10
        assert beats.is_due()


def test_only_tasks_with_a_limit_have_beats_and_no_waits():
    assert beats_of(task_log()) is not None
    assert beats_of(task_log(None)) is None
    assert beats_of(task_log(is_event=True)) is None
