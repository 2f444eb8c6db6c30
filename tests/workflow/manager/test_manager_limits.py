"""A manager keeps limits for all workflows that it runs, and begins with care where one before it has kept them."""

from __future__ import annotations

import asyncio

import pytest
from hand_runner import HandRunner, managing
from sample_records import lease
from test_submission_reader import GONE
from test_submission_reader import managing as managing_a_cluster

from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

SOON = Intervals(progress_s=0.01)
ONE = TaskLimit(name="one", max_concurrency=1)
SELDOM = TaskLimit(name="seldom", rate="5/hour")
HOURLY = TaskLimit(name="hourly", rate="3/hour")


def graph(name: str, limit: TaskLimit) -> bytes:
    options = TaskOptions(limits=(limit,))
    task = Task(name=name, named_by_author=True, function=0, arguments=0, options=options)
    return Graph(tasks=[task], blobs=[b""]).to_bytes()


async def begin(manager: Manager, name: str, limit: TaskLimit) -> None:
    await manager.submit(name, graph(name, limit), user_metadata={})


async def waits(store: MemoryStore, workflow_id: str, limit: TaskLimit) -> None:
    """Return as soon as the workflow says that its task waits."""
    async with asyncio.timeout(30):
        while True:
            record = WorkflowStore(store).read_status(workflow_id)
            if record and record.progress and record.progress.limited == {limit.name: 1}:
                return
            await asyncio.sleep(0.01)


async def test_tasks_of_several_workflows_run_one_after_the_other():
    store, runner = MemoryStore(), HandRunner()
    async with managing(store, runner, intervals=SOON) as manager:
        for name in "abc":
            await begin(manager, name, ONE)
        await waits(store, "b", ONE)
        await waits(store, "c", ONE)
        assert list(runner.errands) == ["a"]
        await manager.cancel("b")
        await runner.end("a")
        await runner.end("c")
    assert runner.started == {"a": 1, "c": 1}


@pytest.mark.parametrize(
    ("earlier", "is_full"), [("a", True), ("of another cluster", False)], ids=["restarted", "new"]
)
async def test_a_manager_that_is_restarted_lets_the_period_of_a_rate_pass(
    earlier: str, is_full: bool
):
    store, runner = MemoryStore(), HandRunner()
    WorkflowStore(store).leases.write(lease("before", actor_id=earlier, process=GONE))
    async with managing(store, runner, "now", intervals=SOON) as manager:
        await begin(manager, "w", SELDOM)
        if is_full:
            await waits(store, "w", SELDOM)
            assert not runner.started
        else:
            await runner.end("w")


async def test_two_clusters_each_keep_a_rate():
    store = MemoryStore()
    here, there = HandRunner(), HandRunner()
    given = {"intervals": SOON}
    async with (
        managing_a_cluster(store, "m", actor_id="a", runner=here, **given) as one,
        managing_a_cluster(store, "n", actor_id="b", runner=there, **given) as other,
    ):
        for number in range(4):
            await begin(one, f"here{number}", HOURLY)
            await begin(other, f"there{number}", HOURLY)
        for name in ("here3", "there3"):
            await waits(store, name, HOURLY)
        for runner, name in ((here, "here"), (there, "there")):
            assert runner.started.keys() == {f"{name}{number}" for number in range(3)}
