"""Runs of plans by the executor, with a runner that answers at once and in any order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Executor as ThreadPool
from concurrent.futures import Future
from dataclasses import replace
from random import Random
from typing import Any

from faulty import FaultyStore, Killed
from plans import Plan, call, from_result, to_graph, to_result

from airflow_provider_rayworkflow.workflow.execution.executor import Executor
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome
from airflow_provider_rayworkflow.workflow.model.records import Form, Result, TaskFailure, TaskTimes
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Continued,
    Earlier,
    Errand,
    InputsLost,
    Interrupted,
    Lost,
    NotBegun,
    Raised,
    Returned,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.scheduling.failures import MAX_REBUILDS
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

ID = "w"
#: What the letters of a plan's failures stand for, but for "A" of the task itself.
CAUSES = {
    "S": Cause.SYSTEM,
    "N": Cause.NODE_LOST,
    "O": Cause.OUT_OF_MEMORY,
    "C": Cause.CRASHED,
}
TIMES = TaskTimes(started_at=1.0, ended_at=2.0, attempt=1)


class AtOnce(ThreadPool):
    """Runs what it is given here and now."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)
        return future


class PlanRunner:
    """Does what a plan says; tasks that are under way end in any order.

    Of a linear run, any number share a Ray task. It hands back what it has not begun at any place,
    and sometimes it is lost.

    :ivar executor: the one that it runs for.
    """

    executor: Executor

    def __init__(self, plan: Plan, random: Random) -> None:
        self.plan = plan
        self.random = random
        self.started: Counter[str] = Counter()
        self.interrupted: Counter[str] = Counter()
        self.under_way: list[list[Errand]] = []
        self.longest = 0

    def start(self, errand: Errand) -> None:
        pack = [errand]
        while (after := pack[-1].follow(lambda run: self.random.random() < 0.8)) is not None:
            pack.append(after)
        self.longest = max(self.longest, len(pack))
        for one in pack:
            self.started[one.run.task_id] += one.run.attempt == 1
        self.under_way.append(pack)
        asyncio.get_running_loop().call_soon(self.end_one)

    def stop(self, errand: Errand) -> None:
        for pack in [pack for pack in self.under_way if errand in pack]:
            self.under_way.remove(pack)
            for one in pack:
                one.on_done(Lost(failure=failure(one.run, system=True)))

    def end_one(self) -> None:
        if self.under_way:
            pack = self.under_way.pop(self.random.randrange(len(self.under_way)))
            self.end(pack)

    def end(self, pack: list[Errand]) -> None:
        if len(pack) > 1 and self.random.random() < 0.1:
            for errand in pack:
                self.interrupted[errand.run.task_id] += 1
                errand.on_done(Interrupted())
            return
        results: dict[str, Result] = {}
        done = self.random.randint(1, len(pack))
        for errand in pack[:done]:
            run = with_results(errand.run, results)
            completion = self.completion(run) if run else NotBegun()
            if isinstance(completion, Returned):
                form = Form.CAUGHT_VALUE if run.catches else Form.VALUE
                results[run.task_id] = completion.result._replace(form=form)
            errand.on_done(completion)
        for errand in pack[done:]:
            errand.on_done(NotBegun())

    def completion(self, run: TaskRun) -> AttemptEnd:
        called = call(self.plan, run.arguments)
        did = called.task.attempt(run.attempt - self.interrupted[run.task_id])
        if isinstance(did, tuple):
            graph = called.continuation(did, run.inputs)
            return Continued(graph=graph.to_bytes(), times=TIMES)
        if did == "value":
            return Returned(result=to_result(called.value(run.inputs)), times=TIMES)
        if did in CAUSES:
            return Lost(failure=replace(failure(run, system=True), cause=CAUSES[did]))
        failed = failure(run, system=False)
        return Raised(failure=failed, exception=b"!", retryable=True, times=TIMES)


class ForgetfulRunner(PlanRunner):
    """Finds now and then that a result which a task takes is gone."""

    losses = MAX_REBUILDS

    def completion(self, run: TaskRun) -> AttemptEnd:
        if run.inputs and self.losses and self.random.random() < 0.3:
            self.losses -= 1
            return InputsLost(positions=(self.random.randrange(len(run.inputs)),), reason="gone")
        return super().completion(run)


def with_results(run: TaskRun, results: dict[str, Result]) -> TaskRun | None:
    """The run with the results of the tasks before it; None if one of them has no result."""
    earlier = [one.task_id for one in run.inputs if isinstance(one, Earlier)]
    if any(task_id not in results for task_id in earlier):
        return None
    inputs = (results[i.task_id] if isinstance(i, Earlier) else i for i in run.inputs)
    return run._replace(inputs=tuple(inputs))


def failure(run: TaskRun, *, system: bool) -> TaskFailure:
    cause = Cause.SYSTEM if system else Cause.APPLICATION
    return TaskFailure(task_id=run.task_id, type="E", message="", traceback="", cause=cause)


def execute(
    plan: Plan,
    store: ByteStore,
    random: Random,
    /,
    *,
    epoch: int = 1,
    at: int = -1,
    changed: Collection[int] = (),
    runner_type: type[PlanRunner] = PlanRunner,
    claim: Claim | None = None,
    known: Collection[str] | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **options: Any,
) -> tuple[Outcome | None, PlanRunner]:
    """Run a workflow to its end, or to the death of the process at a write.

    :param changed: tasks whose arguments are others.
    :param new_loop: makes the event loop of the run.
    :param options: of :class:`Executor`.
    :param claim: by default one of the epoch that brings the graph.
    """
    if claim is None:
        claim = next_claim(
            ID, after=epoch - 1, manager_id="m", now=0, user_metadata={}, has_graph=True
        )
        claim = replace(claim, base_epoch=1)
    runner, faulty = runner_type(plan, random), FaultyStore(store, at=at, how="after")

    async def main() -> Outcome | None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        executor = Executor(
            claim=claim,
            graph=to_graph(plan, changed=changed),
            store=WorkflowStore(faulty),
            runner=runner,
            threads=AtOnce(),
            writes=Writes(faulty, AtOnce()),
            on_result=lambda task_id, result: None,
            clock=lambda: 1.0,
            known=known,
            **{"metrics": Metrics()} | options,
        )
        runner.executor = executor
        run = asyncio.ensure_future(executor.run())
        died = asyncio.wrap_future(faulty.died)
        await asyncio.wait([run, died], return_when=asyncio.FIRST_COMPLETED)
        if not died.done():
            return run.result()
        run.cancel()
        await asyncio.wait([run])
        return None

    try:
        with asyncio.Runner(loop_factory=new_loop) as loop:
            return loop.run(main()), runner
    except Killed:
        return None, runner


def records(store: ByteStore) -> dict:
    return WorkflowStore(store).read_checkpoints(ID).records


def value_of(outcome: Outcome | None) -> object:
    return outcome and outcome.result and from_result(outcome.result)
