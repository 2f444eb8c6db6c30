"""Records of one run are committed in their order, and what follows from them is told in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from airflow_provider_rayworkflow.workflow.execution.group_commit import GroupCommit
from airflow_provider_rayworkflow.workflow.execution.thread_pool import ThreadPool
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter

Step = Callable[[], None]


class Run:
    """Commits, and hears what follows when it takes the next step.

    :ivar told: what was called, in its order.
    """

    def __init__(self) -> None:
        store = MemoryStore()
        self.told: list[str] = []
        self._steps: asyncio.Queue[Step] = asyncio.Queue()
        self._threads = ThreadPool(1)
        self.commits = GroupCommit(
            JournalWriter(store, "w", 1),
            Writes(store, self._threads),
            enqueue=self._steps.put_nowait,
            on_written=self._written,
        )

    def _written(self, records: Sequence[TaskRecord], error: BaseException | None) -> None:
        assert error is None
        self.told += [f"{record.task_id} is written" for record in records]

    def commit(self, name: str, *, is_kept: bool = True) -> None:
        record = TaskRecord(task_id=name, result=Result(inline=b"1")) if is_kept else None
        self.commits.commit(record, lambda: self.told.append(f"after {name}"))

    async def next_step(self) -> Step:
        async with asyncio.timeout(30):
            return await self._steps.get()

    def close(self) -> None:
        self._threads.shutdown()


async def test_what_keeps_no_record_comes_after_what_is_written_and_not_told_yet():
    run = Run()
    run.commit("a")
    run.commits.write_waiting()
    step = await run.next_step()  # a is durable
    run.commit("b", is_kept=False)
    assert (run.told, run.commits.is_busy) == ([], True)
    step()
    run.commits.write_waiting()
    (await run.next_step())()
    assert not run.commits.is_busy
    run.close()
    assert run.told == ["a is written", "after a", "after b"]


async def test_what_keeps_no_record_is_told_at_once_where_no_record_waits():
    run = Run()
    run.commit("a", is_kept=False)
    run.close()
    assert run.told == ["after a"]
