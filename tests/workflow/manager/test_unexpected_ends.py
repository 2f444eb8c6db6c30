"""After any error while a run begins or ends, the workflow is handed back: RESUMABLE."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import effects
import pytest
import ray
from hurried import in_process
from waiting import until, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord, TaskFailure
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd, Errand, Lost
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = [pytest.mark.invariant(4), pytest.mark.timeout(60)]


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("it can't even say what it is")


ERRORS = [RuntimeError("boom"), OSError(24, "Too many open files"), MemoryError(), Mute()]


class BreakingStore(MemoryStore):
    """Raises an error that no store should when certain objects are written or deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: tuple[str, ...] = ()
        #: What is written before the error.
        self.lost_answers: tuple[str, ...] = ()
        self.error: BaseException = RuntimeError("boom")

    def put(self, key: str, data: Data) -> None:
        self._break("put", key)
        super().put(key, data)
        if any(word in key for word in self.lost_answers):
            raise self.error

    def delete(self, keys) -> None:
        wanted = list(keys)
        for key in wanted:
            self._break("delete", key)
        super().delete(wanted)

    def _break(self, call: str, key: str) -> None:
        if any(word in f"{call} {key}" for word in self.broken):
            raise self.error


class BreakingMetrics(Metrics):
    """Raises these errors when it is told an end."""

    def __init__(self) -> None:
        self.at_workflows: BaseException | None = None
        self.at_tasks: BaseException | None = None

    def workflow_ended(self, record: StatusRecord) -> None:
        if self.at_workflows is not None:
            raise self.at_workflows

    def tasks_ended(self, completions: Sequence[AttemptEnd]) -> None:
        if self.at_tasks is not None:
            raise self.at_tasks


@pytest.fixture
def store() -> Iterator[BreakingStore]:
    with effects.fresh():
        yield BreakingStore()


def shown(store: MemoryStore) -> str:
    """The status that a reader of the storage sees."""
    found = StatusReader(WorkflowStore(store)).read("w")
    return "nothing" if found is None else found.status.value


def has_a_checkpoint(store: MemoryStore) -> bool:
    return any(entry.key.endswith(".journal") for entry in store.list("v1/workflows"))


@ray.remote
def note(value):
    effects.note(value)
    return value


@ray.remote
def wait_at_the_gate():
    effects.gate.wait()


@ray.remote
def pass_the_gate(value):
    effects.gate.wait()
    return value


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_final_status_that_meets_an_unexpected_error_hands_the_workflow_back(
    store: BreakingStore, error: BaseException
):
    store.error, store.broken = error, ("-SUCCESSFUL-",)
    with in_process(store, retry_s=0.01) as workflows:
        with pytest.raises(workflow.WorkflowError):
            workflows.run(note.bind(1), workflow_id="w")
        wait_until(lambda: shown(store) == "RESUMABLE")
        store.broken = ()
        assert workflows.resume("w") == 1
    assert effects.calls == [1]


def test_one_that_lasts_for_a_while_is_tried_again(store: BreakingStore):
    store.broken = ("-SUCCESSFUL-", "-RESUMABLE-")
    with in_process(store, retry_s=0.01) as workflows:
        with pytest.raises(workflow.WorkflowError, match="boom"):
            workflows.run(note.bind(1), workflow_id="w")
        store.broken = ()
        wait_until(lambda: shown(store) == "RESUMABLE")


def test_a_status_whose_write_arrived_though_it_failed_stays(store: BreakingStore):
    store.error, store.lost_answers = RuntimeError("no answer"), ("-SUCCESSFUL-",)
    with in_process(store, retry_s=0.01) as workflows:
        # Who asks when it has ended has the output from the storage.
        output = workflows.run_async(pass_the_gate.bind(1), workflow_id="w")
        effects.gate.set()
        with pytest.raises(workflow.WorkflowError, match="no answer"):
            ray.get(output)
        assert shown(store) == "SUCCESSFUL"
        assert workflows.get_output("w") == 1


def test_earlier_statuses_that_can_not_be_deleted_hinder_no_end(store: BreakingStore):
    store.broken = ("delete v1/status",)
    with in_process(store, retry_s=0.01) as workflows:
        assert workflows.run(note.bind(1), workflow_id="w") == 1
        assert shown(store) == "SUCCESSFUL"


def test_figures_that_can_not_be_kept_hinder_no_end(store: BreakingStore):
    metrics = BreakingMetrics()
    metrics.at_workflows = RuntimeError("boom")
    with in_process(store, retry_s=0.01, metrics=metrics) as workflows:
        assert workflows.run(note.bind(1), workflow_id="w") == 1
        assert workflows.run(note.bind(2), workflow_id="x") == 2


class ProgressBreaks(MemoryStore):
    """Fails when a running workflow's status is written again, which is how its progress is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    def put(self, key: str, data: Data) -> None:
        if "-RUNNING-" in key and key in self.written:
            effects.gate.set()
            raise RuntimeError("boom")
        self.written.add(key)
        super().put(key, data)


def test_a_run_whose_progress_can_not_be_told_ends_well():
    with effects.fresh():
        store = ProgressBreaks()
        with in_process(store, progress_s=0.001) as workflows:
            assert workflows.run(wait_at_the_gate.bind(), workflow_id="w") is None
            assert effects.gate.is_set()
        assert shown(store) == "SUCCESSFUL"


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), SystemExit(1)])
def test_a_run_that_breaks_hands_the_workflow_back(store: BreakingStore, error: BaseException):
    metrics = BreakingMetrics()
    with in_process(store, retry_s=0.01, metrics=metrics) as workflows:
        workflows.init(max_running_workflows=1)
        output = workflows.run_async(pass_the_gate.bind(note.bind(1)), workflow_id="w")
        wait_until(lambda: has_a_checkpoint(store))
        metrics.at_tasks = error
        effects.gate.set()
        with pytest.raises(workflow.WorkflowError):
            ray.get(output)
        metrics.at_tasks = None
        assert shown(store) == "RESUMABLE"
        assert workflows.run(note.bind(2), workflow_id="x") == 2  # its slot is free
        assert workflows.resume("w") == 1
    assert effects.calls == [1, 2]


class EndlessRunner:
    """Its tasks end when they are told to, or stopped."""

    def __init__(self) -> None:
        self.errands: dict[str, Errand] = {}
        self.stopped: list[str] = []

    def start(self, errand: Errand) -> None:
        self.errands[errand.run.task_id] = errand

    def stop(self, errand: Errand) -> None:
        self.stopped.append(errand.run.task_id)
        self.end(errand.run.task_id)

    def end(self, task_id: str) -> None:
        lost = TaskFailure(task_id=task_id, type="", message="", traceback="", cause=Cause.SYSTEM)
        asyncio.get_running_loop().call_soon(self.errands[task_id].on_done, Lost(failure=lost))


TWO_TASKS = Graph(
    tasks=[
        Task(name="a", function=0, arguments=0),
        Task(name="b", function=0, arguments=0),
        Task(name="end", function=0, arguments=0, upstream=(0, 1)),
    ],
    blobs=[b""],
)


async def test_a_run_that_breaks_leaves_no_task_running(store: BreakingStore):
    runner, metrics = EndlessRunner(), BreakingMetrics()
    manager = Manager(
        store=WorkflowStore(store),
        runner=runner,
        manager_id="m",
        actor_id="a",
        limits=Limits(),
        metrics=metrics,
    )
    await manager.start()
    try:
        await manager.submit("w", TWO_TASKS.to_bytes(), user_metadata={})
        await until(lambda: len(runner.errands) == 2)
        metrics.at_tasks = RuntimeError("boom")
        runner.end("a")
        await until(lambda: shown(store) == "RESUMABLE")
        assert "b" in runner.stopped
    finally:
        await manager.close()


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
def test_a_start_that_meets_an_unexpected_error_leaves_no_claim_that_others_wait_for(
    store: BreakingStore, error: BaseException
):
    store.error, store.broken = error, ("-RUNNING-",)
    with in_process(store, retry_s=0.01) as workflows:
        with pytest.raises(type(error)):
            workflows.run(note.bind(1), workflow_id="w")
        wait_until(lambda: shown(store) == "RESUMABLE")
        store.broken = ()
        assert workflows.run(note.bind(1), workflow_id="w") == 1


def test_a_restart_that_can_not_delete_what_was_before_hands_the_workflow_back(
    store: BreakingStore,
):
    with in_process(store, retry_s=0.01) as workflows:
        workflows.run(note.bind(1), workflow_id="w")
        store.broken = ("delete v1/workflows",)
        with pytest.raises(RuntimeError, match="boom"):
            workflows.run(note.bind(2), workflow_id="w", on_existing="restart")
        wait_until(lambda: shown(store) == "RESUMABLE")
        store.broken = ()
        assert workflows.resume("w") == 2


def test_one_late_status_that_breaks_keeps_no_other_from_being_written(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch
):
    store.broken = ("-SUCCESSFUL-", "/x/00000001-0001-RESUMABLE-")
    with in_process(store, retry_s=0.01) as workflows:
        for workflow_id in ("x", "w"):
            with pytest.raises(workflow.WorkflowError, match="boom"):
                workflows.run(note.bind(1), workflow_id=workflow_id)
        wait_until(lambda: shown(store) == "RESUMABLE")
        store.broken = ()
        wait_until(lambda: WorkflowStore(store).read_status("x").status == "RESUMABLE")
