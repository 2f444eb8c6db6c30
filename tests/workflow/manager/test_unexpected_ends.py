"""After any error while a run begins or ends, the workflow is handed back: RESUMABLE."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import effects
import pytest
import ray
from effects import wait_until
from hurried import in_process

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.execution import executor
from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.manager import runs
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
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
        self.error: BaseException = RuntimeError("boom")

    def put(self, key: str, data: Data) -> None:
        self._break("put", key)
        super().put(key, data)

    def delete(self, keys) -> None:
        wanted = list(keys)
        for key in wanted:
            self._break("delete", key)
        super().delete(wanted)

    def _break(self, call: str, key: str) -> None:
        if any(word in f"{call} {key}" for word in self.broken):
            raise self.error


@pytest.fixture
def store() -> Iterator[BreakingStore]:
    with effects.fresh():
        yield BreakingStore()


def shown(store: MemoryStore) -> str:
    """The status that a reader of the storage sees."""
    found = StatusReader(WorkflowStore(store)).read("w")
    return "nothing" if found is None else found.status.value


@ray.remote
def note(value):
    effects.note(value)
    return value


@ray.remote
def wait_at_the_gate():
    effects.gate.wait()


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


def test_a_status_whose_write_arrived_though_it_failed_stays(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch
):
    put = MemoryStore.put

    def put_and_fail(self: MemoryStore, key: str, data: Data) -> None:
        put(self, key, data)
        if "-SUCCESSFUL-" in key:
            raise RuntimeError("no answer")

    monkeypatch.setattr(BreakingStore, "put", put_and_fail)
    with in_process(store, retry_s=0.01) as workflows:
        with pytest.raises(workflow.WorkflowError, match="no answer"):
            workflows.run(note.bind(1), workflow_id="w")
        assert shown(store) == "SUCCESSFUL"
        assert workflows.get_output("w") == 1


def test_earlier_statuses_that_can_not_be_deleted_hinder_no_end(store: BreakingStore):
    store.broken = ("delete v1/status",)
    with in_process(store, retry_s=0.01) as workflows:
        assert workflows.run(note.bind(1), workflow_id="w") == 1
        assert shown(store) == "SUCCESSFUL"


def test_figures_that_can_not_be_kept_hinder_no_end(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: Metrics, record: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Metrics, "workflow_ended", fail)
    with in_process(store, retry_s=0.01) as workflows:
        assert workflows.run(note.bind(1), workflow_id="w") == 1
        assert workflows.run(note.bind(2), workflow_id="x") == 2


def test_a_run_whose_progress_is_unknown_ends_well(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object) -> None:
        effects.gate.set()
        raise RuntimeError("boom")

    monkeypatch.setattr(runs, "_with_progress", fail)
    with in_process(store, progress_s=0.001) as workflows:
        assert workflows.run(wait_at_the_gate.bind(), workflow_id="w") is None
    assert shown(store) == "SUCCESSFUL"


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), SystemExit(1)])
def test_a_run_that_breaks_hands_the_workflow_back(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    def fail(self: HeldWorkflow, task_id: str, result: object) -> None:
        raise error

    with in_process(store, retry_s=0.01) as workflows:
        workflows.init(max_running_workflows=1)
        with monkeypatch.context() as broken:
            broken.setattr(HeldWorkflow, "tell_waiters", fail)
            with pytest.raises(workflow.WorkflowError):
                workflows.run(note.bind(1), workflow_id="w")
        assert shown(store) == "RESUMABLE"
        assert workflows.run(note.bind(2), workflow_id="x") == 2  # its slot is free
        assert workflows.resume("w") == 1
    assert effects.calls == [1, 2]


def test_a_run_that_breaks_leaves_no_task_running(
    store: BreakingStore, monkeypatch: pytest.MonkeyPatch
):
    stopped = []
    monkeypatch.setattr(
        executor.Executor, "_check_finished", lambda self, schedule: 1 / len(effects.calls[:0])
    )
    stop_all = AttemptTable.stop_all

    def stop(self: AttemptTable) -> None:
        stopped.extend(node.task_id for node in self._attempts)
        stop_all(self)

    monkeypatch.setattr(AttemptTable, "stop_all", stop)
    with in_process(store, retry_s=0.01) as workflows:
        with pytest.raises(workflow.WorkflowError, match="division by zero"):
            workflows.run(wait_at_the_gate.bind(), workflow_id="w")
        assert shown(store) == "RESUMABLE"
    assert [name.rpartition(".")[2] for name in stopped] == ["wait_at_the_gate"]


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
