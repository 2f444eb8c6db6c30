"""Tasks of a linear run in one Ray task: which they are, and when their results count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from noting_store import NotingStore
from plan_runs import TIMES, AtOnce

from airflow_provider_rayworkflow.workflow.execution.executor import Executor
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.outcome import Outcome
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Result, TaskFailure
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Earlier,
    Errand,
    Interrupted,
    NotBegun,
    Raised,
    Returned,
)
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

CHAIN = [(), (0,), (1,), (2,)]
#: Each takes the two before it.
LADDER = [(), (0,), (0, 1), (1, 2), (2, 3)]
FORK = [(), (0,), (0,), (1, 2)]


def graph(edges: Sequence[tuple[int, ...]], **options: object) -> Graph:
    tasks = [
        Task(
            name=f"t{index}",
            named_by_author=True,
            function=0,
            arguments=0,
            upstream=upstream,
            options=TaskOptions(**options),
        )
        for index, upstream in enumerate(edges)
    ]
    return Graph(tasks=tasks, blobs=[b""])


class SharingRunner:
    """Puts a task and all that follow it into one Ray task.

    :param ends: how tasks end that don't return a value: for each start of the task the next one.
    :ivar packs: the ids of the tasks that were started together, and the attempt of each.
    """

    def __init__(self, store: NotingStore, ends: dict[str, list[AttemptEnd]]) -> None:
        self._store = store
        self._ends = ends
        self.packs: list[list[str]] = []
        self.attempts: list[tuple[str, int]] = []
        self.written_before: list[int] = []

    def start(self, errand: Errand) -> None:
        pack: list[Errand] = [errand]
        while (after := pack[-1].follow(lambda run: run.can_share)) is not None:
            pack.append(after)
        self.packs.append([one.run.task_id for one in pack])
        self.attempts += [(one.run.task_id, one.run.attempt) for one in pack]
        self.written_before.append(self._store.count("put", ".journal"))
        asyncio.get_running_loop().call_soon(self._end, pack)

    def stop(self, errand: Errand) -> None:
        pass

    def _end(self, pack: list[Errand]) -> None:
        returned: set[str] = set()
        for errand in pack:
            run = errand.run
            needed = {given.task_id for given in run.inputs if isinstance(given, Earlier)}
            completion: AttemptEnd = Returned(result=VALUE, times=TIMES)
            if ends := self._ends.get(run.task_id):
                completion = ends.pop(0)
            elif not needed <= returned:
                completion = NotBegun()
            if isinstance(completion, Returned):
                returned.add(run.task_id)
            errand.on_done(completion)


VALUE = Result(encoding=Encoding.JSON, inline=b"1")
ERROR = Raised(
    failure=TaskFailure(task_id="t", type="E", message="", traceback=""),
    exception=b"!",
    retryable=True,
    times=TIMES,
)


def execute(
    graph: Graph, store: NotingStore, ends: dict[str, list[AttemptEnd]] | None = None
) -> tuple[Outcome, SharingRunner]:
    runner = SharingRunner(store, ends or {})

    async def main() -> Outcome:
        executor = Executor(
            claim=next_claim("w", after=0, manager_id="m", now=0, user_metadata={}, has_graph=True),
            graph=graph,
            store=WorkflowStore(store),
            runner=runner,
            threads=AtOnce(),
            writes=Writes(store, AtOnce()),
            on_result=lambda task_id, result: None,
            metrics=Metrics(),
            clock=lambda: 1.0,
        )
        return await executor.run()

    return asyncio.run(main()), runner


def committed(store: NotingStore) -> list[str]:
    return list(WorkflowStore(store).read_checkpoints("w").records)


@pytest.mark.parametrize("edges", [CHAIN, LADDER])
def test_a_linear_run_is_committed_in_order_by_one_write(edges: list[tuple[int, ...]]):
    store = NotingStore()
    outcome, runner = execute(graph(edges), store)
    ids = [f"t{index}" for index in range(len(edges))]
    assert outcome.result is not None
    assert runner.packs == [ids]
    assert committed(store) == ids
    assert store.count("put", ".journal") == 1


def test_a_run_ends_where_tasks_can_run_side_by_side():
    store = NotingStore()
    _, runner = execute(graph(FORK), store)
    assert runner.packs == [["t0"], ["t1"], ["t2"], ["t3"]]
    # What is outside of a run begins only after the commit.
    assert runner.written_before == [0, 1, 1, 2]


def test_a_task_with_limits_follows_no_other():
    limits = (TaskLimit(name="one", max_concurrency=1),)
    tasks = [
        task._replace(options=TaskOptions(limits=limits if index in (0, 2) else ()))
        for index, task in enumerate(graph(CHAIN).tasks)
    ]
    outcome, runner = execute(Graph(tasks=tasks, blobs=[b""]), NotingStore())
    assert outcome.result is not None
    assert runner.packs == [["t0", "t1"], ["t2", "t3"]]


def test_a_task_that_has_not_begun_keeps_its_attempt():
    store = NotingStore()
    outcome, runner = execute(graph(CHAIN), store, {"t2": [NotBegun()]})
    assert outcome.result is not None
    assert runner.packs == [["t0", "t1", "t2", "t3"], ["t2", "t3"]]
    assert runner.attempts[4:] == [("t2", 1), ("t3", 1)]
    assert committed(store) == ["t0", "t1", "t2", "t3"]


def test_tasks_that_were_lost_together_run_again_alone_and_uncharged():
    store = NotingStore()
    ends: dict[str, list[AttemptEnd]] = {f"t{index}": [Interrupted()] for index in range(4)}
    outcome, runner = execute(graph(CHAIN, max_retries=1), store, ends)
    assert outcome.result is not None
    assert runner.packs == [["t0", "t1", "t2", "t3"], ["t0"], ["t1"], ["t2"], ["t3"]]
    assert runner.attempts[4:] == [("t0", 2), ("t1", 2), ("t2", 2), ("t3", 2)]


def test_a_failure_in_a_run_counts_after_what_came_before_it():
    store = NotingStore()
    options = {"retry_exceptions": True, "max_retries": 1}
    outcome, runner = execute(graph(CHAIN, **options), store, {"t2": [ERROR]})
    assert outcome.result is not None
    assert runner.packs == [["t0", "t1", "t2", "t3"], ["t2", "t3"]]
    assert runner.written_before == [0, 1]
    assert runner.attempts[4:] == [("t2", 2), ("t3", 1)]


def test_tasks_that_ran_before_one_that_fails_for_good_are_committed():
    store = NotingStore()
    outcome, _ = execute(graph(CHAIN), store, {"t2": [ERROR]})
    assert outcome.failure == ERROR.failure
    assert committed(store) == ["t0", "t1"]


def test_results_without_a_checkpoint_wait_for_those_before_them():
    tasks = list(graph([*CHAIN, (3,)]).tasks)
    tasks[1] = Task(
        name="t1",
        named_by_author=True,
        function=0,
        arguments=0,
        upstream=(0,),
        options=TaskOptions(checkpoint=False),
    )
    store = NotingStore()
    outcome, runner = execute(Graph(tasks=tasks, blobs=[b""]), store, {"t2": [NotBegun()]})
    assert outcome.result is not None
    assert runner.packs == [["t0", "t1", "t2", "t3", "t4"], ["t2", "t3", "t4"]]
    assert runner.written_before == [0, 1]
    assert committed(store) == ["t0", "t2", "t3", "t4"]


@pytest.mark.parametrize(
    "options", [{"max_retries": 0}, {"isolate": True}, {"is_event": True}], ids=str
)
def test_some_tasks_never_share(options: dict[str, object]):
    _, runner = execute(graph(CHAIN, **options), NotingStore())
    assert runner.packs == [["t0"], ["t1"], ["t2"], ["t3"]]
