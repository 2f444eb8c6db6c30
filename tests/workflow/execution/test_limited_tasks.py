"""Runs that share limits: which of their tasks may run, and that each attempt gives back what it has, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hand_runner import RETURNED, HandRunner
from hypothesis import given
from hypothesis import strategies as st
from plan_runs import TIMES, AtOnce, ForgetfulRunner, execute, failure
from plans import Plan, PlannedTask, plans
from virtual_time import VirtualTimeLoop

from airflow_provider_rayworkflow.workflow.execution.executor import Executor
from airflow_provider_rayworkflow.workflow.execution.limit_keeper import LimitKeeper, Permit
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.model.graph import Graph, RetryOptions, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome, Stop
from airflow_provider_rayworkflow.workflow.model.records import RunningTask
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    Errand,
    InputsLost,
    Interrupted,
    Lost,
    NotBegun,
    Raised,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

ONE = TaskLimit(name="one", max_concurrency=1)
RATED = TaskLimit(name="rated", rate="2/10s")
RETRIED = RetryOptions(attempts=3, wait_initial_s=0)

loop_factory = VirtualTimeLoop


def graph(*names: str, limit: TaskLimit = ONE, **options: Any) -> Graph:
    """Tasks that run side by side, and one that takes them all."""
    limited = TaskOptions(limits=(limit,), **options)
    tasks = [
        Task(name=name, named_by_author=True, function=0, arguments=0, options=limited)
        for name in names
    ]
    if len(tasks) > 1:
        tasks.append(Task(name="end", function=0, arguments=0, upstream=tuple(range(len(tasks)))))
    return Graph(tasks=tasks, blobs=[b""])


@dataclass
class World:
    """Runs of one manager, all in one event loop."""

    runner: HandRunner = field(default_factory=HandRunner)
    keeper: LimitKeeper = field(default_factory=LimitKeeper)
    remarks: list[str] = field(default_factory=list)

    def begin(self, workflow_id: str, made: Graph) -> Run:
        store = MemoryStore()
        claim = next_claim(
            workflow_id, after=0, manager_id="m", now=0, user_metadata={}, has_graph=True
        )
        executor = Executor(
            claim=claim,
            graph=made,
            store=WorkflowStore(store),
            runner=self.runner,
            threads=AtOnce(),
            writes=Writes(store, AtOnce()),
            on_result=lambda task_id, result: None,
            metrics=Metrics(),
            clock=lambda: 1.0,
            limits=self.keeper,
            on_remark=lambda level, task_id, attempt, text: self.remarks.append(text),
        )
        return Run(executor, asyncio.ensure_future(executor.run()))

    async def under_way(self) -> list[str]:
        """The tasks that are, once nothing more happens by itself."""
        for _ in range(100):
            await asyncio.sleep(0)
        return sorted(self.runner.errands)


@dataclass
class Run:
    executor: Executor
    ending: asyncio.Future[Outcome]


def raised(errand: Errand) -> Raised:
    failed = failure(errand.run, system=False)
    return Raised(failure=failed, exception=b"!", retryable=True, times=TIMES)


End = Callable[[World, Run], Awaitable[object]]


def by(end: Callable[[Errand], Any]) -> End:
    """Its attempt ends."""
    return lambda world, run: world.runner.end("a", end(world.runner.errands["a"]))


async def stop(run: Run, how: Stop) -> None:
    run.executor.stop(how)
    outcome = await run.ending
    assert outcome.stopped is how


async def break_off(run: Run) -> None:
    run.ending.cancel()
    await asyncio.wait([run.ending])


ENDS: dict[str, End] = {
    "it returns": by(lambda errand: RETURNED),
    "it raises": by(raised),
    "it is lost": by(lambda errand: Lost(failure=failure(errand.run, system=True))),
    "it is lost for good": by(
        lambda errand: Lost(failure=failure(errand.run, system=True), retryable=False)
    ),
    "its Ray task is lost": by(lambda errand: Interrupted()),
    "it is handed back": by(lambda errand: NotBegun()),
    "it is suspended": lambda world, run: stop(run, Stop.SUSPEND),
    "it is canceled": lambda world, run: stop(run, Stop.CANCEL),
    "its manager is fenced": lambda world, run: stop(run, Stop.FENCED),
    "its run breaks off": lambda world, run: break_off(run),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_an_attempt_gives_its_place_back_once_however_it_ends(end: End):
    world = World()
    first = world.begin("a", graph("a"))
    assert await world.under_way() == ["a"]
    world.begin("b", graph("b"))
    world.begin("c", graph("c"))
    assert await world.under_way() == ["a"]
    await end(world, first)
    assert await world.under_way() == ["b"]
    await world.runner.end("b")
    assert await world.under_way() == ["c"]


STOPS: dict[str, End] = {
    name: ENDS[name]
    for name in ("it is suspended", "it is canceled", "its manager is fenced", "its run breaks off")
}


@pytest.mark.parametrize("end", STOPS.values(), ids=STOPS)
async def test_a_run_that_is_stopped_waits_no_more(end: End):
    world = World()
    world.begin("a", graph("a"))
    assert await world.under_way() == ["a"]
    second = world.begin("b", graph("b1", "b2"))
    assert await world.under_way() == ["a"]
    world.begin("c", graph("c"))
    await end(world, second)
    await world.runner.end("a")
    assert await world.under_way() == ["c"]
    assert world.runner.started.keys() == {"a", "c"}


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
async def test_a_task_that_is_admitted_as_its_run_ends_gives_its_place_back(is_first: bool):
    world = World()
    world.begin("a", graph("a"))
    assert await world.under_way() == ["a"]
    second = world.begin("b", graph("b"))
    world.begin("c", graph("c"))
    assert await world.under_way() == ["a"]
    for stops in (is_first, not is_first):  # its run is told of both in one turn
        if stops:
            second.executor.stop(Stop.CANCEL)
        else:
            await world.runner.end("a")
    assert await world.under_way() == ["c"]
    assert (await second.ending).stopped is Stop.CANCEL


async def test_the_first_task_that_waits_is_told_with_its_limit():
    world = World()
    run = world.begin("a", graph("a1", "a2", "a3"))
    assert await world.under_way() == ["a1"]
    assert world.remarks == [
        "The task waits for the limit one (1 at once). Others that wait for it are not logged"
    ]
    assert run.executor.attempts.progress(1.0).limited == {"one": 2}
    assert run.executor.attempts.progress(1.0).submitted == 1
    for name in ("a1", "a2", "a3"):
        await world.runner.end(name)
    assert await world.under_way() == ["end"]
    assert run.executor.attempts.progress(1.0).limited == {}


class TimingRunner(HandRunner):
    """Its tasks end as they are started.

    :ivar times: when each attempt began, by the clock of the loop.
    """

    def __init__(self, ends: Callable[[Errand], Any] = lambda errand: RETURNED) -> None:
        super().__init__()
        self.times: list[float] = []
        self._ends = ends

    def start(self, errand: Errand) -> None:
        loop = asyncio.get_running_loop()
        if errand.run.task_id != "end":
            self.times.append(loop.time())
        loop.call_soon(errand.on_done, self._ends(errand))


async def test_a_rate_is_kept_over_the_runs_of_a_manager():
    runner = TimingRunner()

    world = World(runner=runner)
    names = [f"t{number}" for number in range(3)]
    runs = [world.begin(name, graph(*names, limit=RATED)) for name in ("a", "b")]
    for run in runs:
        assert (await run.ending).result is not None
    assert runner.times == [0.0, 0.0, 10.0, 10.0, 20.0, 20.0]


async def test_each_attempt_counts_for_a_rate():
    runner = TimingRunner(lambda errand: raised(errand) if errand.run.attempt < 3 else RETURNED)

    run = World(runner=runner).begin("a", graph("a", limit=RATED, retry=RETRIED))
    assert (await run.ending).result is not None
    assert runner.times == [0.0, 0.0, 10.0]


async def test_an_attempt_that_has_not_begun_counts_for_no_rate():
    left = [NotBegun(), InputsLost(positions=(), reason="gone"), NotBegun()]
    runner = TimingRunner(lambda errand: left.pop() if left else RETURNED)

    run = World(runner=runner).begin("a", graph("a", limit=RATED))
    assert (await run.ending).result is not None
    assert runner.times == [0.0] * 4


async def test_what_a_worker_says_of_a_begin_counts_for_a_rate():
    world = World()
    run = world.begin("a", graph("a1", "a2", "a3", limit=RATED))
    assert await world.under_way() == ["a1", "a2"]
    await asyncio.sleep(100)
    assert await world.under_way() == ["a1", "a2"]  # they may begin just now
    assert world.runner.errands["a1"].run.tells_begin
    begun = RunningTask(task_id="a1", attempt=1, started_at=1.0)
    run.executor.attempts.has_begun(begun)
    await asyncio.sleep(9)
    assert await world.under_way() == ["a1", "a2"]
    await asyncio.sleep(2)
    assert await world.under_way() == ["a1", "a2", "a3"]


async def test_a_restarted_manager_begins_as_if_its_rates_were_used_up():
    runner = TimingRunner()

    world = World(runner=runner)
    world.keeper.begin_full()
    run = world.begin("a", graph("a", limit=RATED))
    assert (await run.ending).result is not None
    assert runner.times == [10.0]


async def test_other_numbers_of_a_later_run_are_said_once(caplog: pytest.LogCaptureFixture):
    world = World()
    world.begin("a", graph("a1", "a2", "a3"))
    assert await world.under_way() == ["a1"]
    more = replace(ONE, max_concurrency=2)
    world.begin("b", graph("b1", "b2", limit=more))
    assert await world.under_way() == ["a1", "a2"]
    for name in ("a1", "a2", "a3"):
        await world.runner.end(name)
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [text.partition("; ")[0] for text in warnings] == [
        "The limit one (2 at once) counts from now on"
    ]


# ---- any workflow


class CountingRunner(ForgetfulRunner):
    """It loses results now and then, and counts what is under way."""

    most = 0

    def start(self, errand: Errand) -> None:
        super().start(errand)
        self.most = max(self.most, sum(map(len, self.under_way)))


def limited(plan: Plan) -> Plan:
    """The same plan, all of its tasks under a limit of one."""

    def with_limit(task: PlannedTask) -> PlannedTask:
        ends_with = task.ends_with
        return replace(
            task,
            options=replace(task.options, limits=(ONE,)),
            ends_with=limited(ends_with) if isinstance(ends_with, tuple) else ends_with,
        )

    return tuple(map(with_limit, plan))


class ObservedKeeper(LimitKeeper):
    """:ivar permits: all that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.permits: list[Permit] = []

    def ask(self, permit: Permit) -> None:
        self.permits.append(permit)
        super().ask(permit)


@given(plans(), st.integers(0, 2**32), st.integers(-1, 6))
def test_any_run_keeps_its_limit_and_ends_without_a_permit(plan: Plan, seed: int, at: int):
    keeper = ObservedKeeper()
    outcome, runner = execute(
        limited(plan), MemoryStore(), Random(seed), at=at, runner_type=CountingRunner, limits=keeper
    )
    assert isinstance(runner, CountingRunner)
    assert runner.most <= 1
    assert not any(permit.is_held for permit in keeper.permits)
    assert outcome is None or (outcome.result is None) == (outcome.failure is not None)
