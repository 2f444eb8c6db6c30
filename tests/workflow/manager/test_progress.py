"""A running workflow writes how far it is: seldom, in place of its status, and only changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hand_runner import HandRunner, managing
from noting_store import NotingStore

from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph, RetryOptions, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.records import (
    FailedAttempt,
    Progress,
    RunningTask,
    StatusRecord,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Raised
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

TIMES = TaskTimes(started_at=1.0, ended_at=2.0, attempt=1, node="pod-1")
RETRIED = TaskOptions(retry=RetryOptions(attempts=2, wait_initial_s=0))
GRAPH = Graph(
    tasks=[
        Task(name="a", function=0, arguments=0),
        Task(name="b", function=0, arguments=0, options=RETRIED),
        Task(name="end", function=0, arguments=0, upstream=(0, 1)),
    ],
    blobs=[b""],
)


class Running:
    def __init__(self, manager: Manager, runner: HandRunner, store: NotingStore) -> None:
        self.manager = manager
        self.runner = runner
        self.store = store

    def status(self) -> StatusRecord:
        record = WorkflowStore(self.store).read_status("w")
        assert record is not None
        return record

    async def wait_for(self, condition: Callable[[Progress], bool]) -> StatusRecord:
        async with asyncio.timeout(10):
            while True:
                record = self.status()
                if record.progress is not None and condition(record.progress):
                    return record
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*, progress_s: float = 0.01) -> AsyncIterator[Running]:
    store, runner = NotingStore(), HandRunner()
    intervals = Intervals(progress_s=progress_s)
    async with managing(store, runner, clock=lambda: 100.0, intervals=intervals) as manager:
        await manager.submit("w", GRAPH.to_bytes(), user_metadata={})
        yield Running(manager, runner, store)


async def test_it_says_what_is_done_running_and_tried_again():
    async with running() as run:
        await run.runner.end("a")
        boom = TaskFailure(task_id="b", type="ValueError", message="boom", traceback="t")
        await run.runner.end("b", Raised(failure=boom, exception=b"!", retryable=True, times=TIMES))
        begun = RunningTask(task_id="b", attempt=2, started_at=50.0, node="pod-2")
        await run.wait_for(lambda progress: bool(progress.retried))
        run.manager.attempts.has_begun("w", 1, begun)
        record = await run.wait_for(lambda progress: progress.running_total == 1)
    assert record.status == "RUNNING"
    assert record.failed_attempts == {"application": 1}
    assert (record.tasks_total, record.tasks_done, record.tasks_reused) == (3, 1, 0)
    assert record.progress == Progress(
        at=100.0,
        submitted=1,
        running_total=1,
        running=(begun,),
        retried=(
            FailedAttempt(
                task_id="b",
                attempt=1,
                error="ValueError: boom",
                note="retry pays, 0 of 1 left",
            ),
        ),
    )


async def test_a_task_that_begins_in_an_attempt_that_is_over_does_not_count():
    async with running() as run:
        await run.wait_for(lambda progress: progress.submitted == 2)
        run.manager.attempts.has_begun("w", 1, RunningTask(task_id="b", attempt=7, started_at=50.0))
        run.manager.attempts.has_begun("w", 9, RunningTask(task_id="b", attempt=1, started_at=50.0))
        run.manager.attempts.has_begun("v", 1, RunningTask(task_id="b", attempt=1, started_at=50.0))
        await run.runner.end("a")
        record = await run.wait_for(lambda progress: progress.submitted == 1)
    assert record.progress is not None
    assert record.progress.running == ()


async def test_nothing_is_written_while_nothing_changes():
    async with running() as run:
        await run.wait_for(lambda progress: progress.submitted == 2)
        before = run.store.count("put", "-RUNNING-")
        await asyncio.sleep(0.1)  # ten looks
        assert run.store.count("put", "-RUNNING-") == before
        await run.runner.end("a")
        await run.wait_for(lambda progress: progress.submitted == 1)
        assert run.store.count("put", "-RUNNING-") == before + 1


async def test_a_short_run_writes_none():
    async with running(progress_s=5.0) as run:
        for task_id in ("a", "b", "end"):
            await run.runner.end(task_id)
        async with asyncio.timeout(4):
            await run.manager.queries.wait_output("w")
        assert run.store.count("put", "-RUNNING-") == 1  # that it is RUNNING
        assert run.status().progress is None


async def test_the_end_has_no_progress_and_leaves_no_other_status():
    async with running() as run:
        await run.wait_for(lambda progress: progress.submitted == 2)
        for task_id in ("a", "b", "end"):
            await run.runner.end(task_id)
        async with asyncio.timeout(10):
            await run.manager.queries.wait_output("w")
        record = run.status()
        assert (record.status, record.tasks_done, record.progress) == ("SUCCESSFUL", 3, None)
        assert len(list(run.store.list("v1/status"))) == 1


async def test_a_caught_error_is_stored_as_text_too():
    graph = Graph(
        tasks=[Task(name="c", function=0, arguments=0, options=TaskOptions(catch_exceptions=True))],
        blobs=[b""],
    )
    async with running() as run:
        await run.manager.submit("v", graph.to_bytes(), user_metadata={})
        boom = TaskFailure(task_id="c", type="ValueError", message="boom", traceback="t")
        await run.runner.end("c", Raised(failure=boom, exception=b"!", retryable=True, times=TIMES))
        async with asyncio.timeout(10):
            await run.manager.queries.wait_output("v")
        record = WorkflowStore(run.store).read_checkpoints("v").records["c"]
    assert record.failure == boom
    assert record.times == TIMES
