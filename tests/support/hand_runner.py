"""Managers in this process whose tasks end when a test says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from waiting import until

from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Result,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Errand,
    Lost,
    Returned,
)
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore

RETURNED = Returned(
    result=Result(encoding=Encoding.JSON, inline=b"1"),
    times=TaskTimes(started_at=1.0, ended_at=2.0, attempt=1),
)


class HandRunner:
    """Its tasks end when a test says so, or when they are stopped.

    :ivar started: counts each task's starts; several runners may share it.
    :ivar errands: those that are under way, by the ids of their tasks.
    """

    def __init__(self, started: Counter[str] | None = None) -> None:
        self.started = Counter() if started is None else started
        self.errands: dict[str, Errand] = {}

    def start(self, errand: Errand) -> None:
        self.started[errand.run.task_id] += 1
        self.errands[errand.run.task_id] = errand

    def stop(self, errand: Errand) -> None:
        task_id = errand.run.task_id
        if self.errands.pop(task_id, None) is not None:
            gone = TaskFailure(
                task_id=task_id, type="", message="", traceback="", cause=Cause.SYSTEM
            )
            asyncio.get_running_loop().call_soon(errand.on_done, Lost(failure=gone))

    async def end(self, task_id: str, end: AttemptEnd = RETURNED) -> None:
        """Wait until a task is under way, and end it."""
        await until(lambda: task_id in self.errands)
        self.errands.pop(task_id).on_done(end)


@asynccontextmanager
async def managing(
    store: ByteStore,
    runner: HandRunner,
    manager_id: str = "m",
    *,
    actor_id: str = "a",
    **options: Any,
) -> AsyncIterator[Manager]:
    """A manager that is up.

    :param actor_id: managers of one actor come one after the other.
    :param options: of :class:`Manager`.
    """
    manager = Manager(
        store=WorkflowStore(store),
        runner=runner,
        manager_id=manager_id,
        actor_id=actor_id,
        limits=Limits(),
        **options,
    )
    await manager.start()
    try:
        yield manager
    finally:
        await manager.close()
