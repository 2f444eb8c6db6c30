"""The checker of fault runs finds what it looks for: a run that is well, and what may be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from checks import Findings, check, check_lists, check_submissions
from ledgers import Ledger
from sample_records import claim_epoch, status_record
from shapes import Plan
from watch import Watch

from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    JsonOutput,
    Result,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.claims import claim_put, next_claim
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_put

PLAN = Plan(workflow_id="w", shape="chain", size=1, pause_s=0)
GRAPH = Graph(tasks=[Task(name="t", function=0, arguments=1)], blobs=[b"f", b"a"])


@pytest.fixture
def store() -> WorkflowStore:
    """A workflow of one task: claimed at 10 by ``a``, committed, claimed again at 30 by ``b``."""
    store = WorkflowStore(MemoryStore())
    claim = claim_epoch(store, "w", GRAPH, manager_id="a", now=10)
    claim_epoch(store, after=1, manager_id="b", now=30, continues=claim)
    result = Result(encoding=Encoding.JSON, inline=b"1")
    times = TaskTimes(started_at=11, ended_at=12, attempt=1)
    writer = JournalWriter(store.bytes, "w", 1)
    writer.commit([TaskRecord(task_id="t", result=result, times=times)])
    store.write_status(
        status_record(
            WorkflowStatus.SUCCESSFUL,
            epoch=2,
            number=1,
            manager_id="b",
            created_at=10,
            output=JsonOutput(value=1),
        )
    )
    return store


@pytest.fixture
def checked(store: WorkflowStore, tmp_path: Path) -> Callable[..., Findings]:
    """Check that workflow with a ledger of these starts: epoch, attempt, and when."""

    def run(*starts: tuple[int, int, float], a_lived_until: float = 20) -> Findings:
        ledger = Ledger(tmp_path / "ledger")
        with ledger.path.open("w") as file:
            for epoch, attempt, at in starts:
                line = {"what": "start", "workflow_id": "w", "task_id": "t", "epoch": epoch}
                print(
                    json.dumps(line | {"attempt": attempt, "pid": 2, "parent": 1, "at": at}),
                    file=file,
                )
        watch = Watch(store, ["w"])
        watch.committed["w", "t"] = (13, 1)
        watch.last_alive["a"] = a_lived_until
        return check(store, [PLAN], ledger, watch)

    return run


def test_a_run_that_is_well_has_no_problems(checked: Callable[..., Findings]):
    found = checked((1, 1, 11))
    assert found == Findings(committed=1)


def test_a_task_that_runs_again_under_a_later_claim_is_found(checked: Callable[..., Findings]):
    assert checked((1, 1, 11), (2, 1, 31)).repeated == 2  # by the clock and by the epochs


def test_a_task_that_runs_again_under_the_same_claim_is_found(checked: Callable[..., Findings]):
    assert checked((1, 1, 11), (1, 2, 14)).repeated == 2


def test_an_attempt_that_is_made_twice_is_found(checked: Callable[..., Findings]):
    [problem] = checked((1, 1, 11), (1, 1, 11.5)).problems
    assert problem == "w: attempt ('t', 1, 1) was made 2 times"


def test_an_owner_that_goes_on_after_the_next_claim_is_found(checked: Callable[..., Findings]):
    assert "who had epoch 1" in checked((1, 1, 31), a_lived_until=32).problems[-1]


def test_a_checkpoint_that_is_gone_is_found(store: WorkflowStore, checked: Callable[..., Findings]):
    store.bytes.delete([keys.journal_key("w", 1, 0)])
    assert checked((1, 1, 11)).lost == 1


def test_a_wrong_output_is_found(store: WorkflowStore, checked: Callable[..., Findings]):
    record = store.read_status("w")
    assert record is not None
    store.write_status(replace(record, number=2, output=JsonOutput(value=2)))
    [problem] = checked((1, 1, 11)).problems
    assert problem == "w gave JsonOutput(value=2, problem=''), not 1"


def test_a_workflow_that_is_lost_is_found(store: WorkflowStore, checked: Callable[..., Findings]):
    store.bytes.delete_folder(keys.status_folder("w"))
    assert checked((1, 1, 11)).problems == ["w is lost"]


# ---- submissions


def claim_for(
    store: WorkflowStore, epoch: int, submission_id: str, *, continues: Claim | None = None
) -> Claim:
    """Claim an epoch of ``w`` for a submission, or for none, with the graph of before."""
    claim = next_claim(
        "w",
        after=epoch - 1,
        manager_id="a",
        now=10,
        user_metadata={},
        has_graph=continues is None,
        continues=continues,
        submission_id=submission_id,
    )
    put = claim_put(claim, GRAPH if continues is None else None)
    store.bytes.put(put.key, put.data)
    return claim


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[str]]:
    """Check the submissions of ``w`` with a ledger of starts in these epochs."""

    def run(store: WorkflowStore, submissions: list[str], *epochs: int) -> list[str]:
        ledger = Ledger(tmp_path / "ledger")
        with ledger.path.open("w") as file:
            for epoch in epochs:
                line = {"what": "start", "workflow_id": "w", "task_id": "t", "epoch": epoch}
                print(json.dumps(line | {"attempt": 1, "pid": 2, "parent": 1, "at": 1}), file=file)
        return check_submissions(store, {"w": submissions}, ledger)

    return run


def test_a_submission_whose_run_is_recovered_is_run_once(problems: Callable[..., list[str]]):
    store = WorkflowStore(MemoryStore())
    first = claim_for(store, 1, "s")
    claim_for(store, 2, "", continues=first)
    assert problems(store, ["s"], 1, 2) == []


def test_a_claim_whose_manager_died_before_any_task_is_no_run(problems: Callable[..., list[str]]):
    store = WorkflowStore(MemoryStore())
    claim_for(store, 1, "s")
    claim_for(store, 2, "s")
    assert problems(store, ["s"], 2) == []


def test_a_submission_that_is_run_twice_is_found(problems: Callable[..., list[str]]):
    store = WorkflowStore(MemoryStore())
    claim_for(store, 1, "s")
    claim_for(store, 2, "s")
    assert problems(store, ["s"], 1, 2) == ["w: its submission was run as 1, and again as 2"]


def test_a_submission_that_is_lost_is_found(problems: Callable[..., list[str]]):
    assert problems(WorkflowStore(MemoryStore()), ["s"]) == ["w: its submission is lost"]


def test_a_run_of_another_submission_is_found(problems: Callable[..., list[str]]):
    store = WorkflowStore(MemoryStore())
    claim_for(store, 1, "old")
    assert problems(store, ["old", "new"], 1) == ["w runs for the submission 'old'"]


# ---- lists


def test_lists_of_a_run_that_is_well_have_no_problems(store: WorkflowStore):
    rebuild(store, now=40)
    assert check_lists(store, within_s=0) == []


def test_a_workflow_that_lists_know_as_it_was_is_found(store: WorkflowStore):
    rebuild(store, now=40)
    for writer in store.changes.writers():
        store.changes.delete(writer)
    failed = status_record(WorkflowStatus.FAILED, epoch=2, number=2, manager_id="b")
    put = status_put(failed)  # as a manager that notes nothing
    store.bytes.put(put.key, put.data)
    (problem,) = check_lists(store, within_s=0)
    assert "FAILED" in problem
