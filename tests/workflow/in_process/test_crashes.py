"""A crash after every single storage write: nothing is lost, and nothing committed runs again."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import effects
import pytest
import ray
from effects import calls
from faulty import FaultyStore, Killed

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowError,
    WorkflowNotResumableError,
)
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.graph import allocate_ids
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

ID = "crashing"


pytestmark = pytest.mark.usefixtures("fresh")


def named(task_id: str, **options: object) -> dict[str, object]:
    return dict(workflow.options(task_id=task_id, **options))


def note() -> None:
    effects.note(workflow.get_context().task_id)


@ray.remote
def number(value):
    note()
    return value


@ray.remote
def add(*values):
    note()
    return sum(values)


@ray.remote
def large(value):
    note()
    return bytes(40_000 + value)


@ray.remote
def length(data):
    note()
    return len(data)


@ray.remote
def fail(value):
    note()
    raise ValueError(value)


@ray.remote
def was_caught(result):
    note()
    value, error = result
    return 1_000_000 if value is None and str(error) == "7" else 0


@ray.remote
def expand(value):
    note()
    parts = [number.options(**named(f"part{n}")).bind(value * n) for n in range(2)]
    return workflow.continuation(add.options(**named("tail")).bind(*parts))


def graph():
    """Fan-out, chain, continuation, large value, a task without checkpoint, caught exceptions."""
    root = number.options(**named("root")).bind(1)
    unchecked = number.options(**named("unchecked", checkpoint=False)).bind(root)
    fan = [add.options(**named(f"fan{n}")).bind(unchecked, n) for n in range(3)]
    chain = add.options(**named("chain2")).bind(add.options(**named("chain1")).bind(fan[0], 1), 1)
    size = length.options(**named("length")).bind(large.options(**named("large")).bind(chain))
    more = expand.options(**named("expand")).bind(chain)
    caught = was_caught.options(**named("was_caught")).bind(
        fail.options(**named("failing", catch_exceptions=True)).bind(7)
    )
    return add.options(**named("output")).bind(size, more, caught, *fan[1:])


#: 40,003 bytes; a continuation of 0 + 3; what was caught; 2 + 3
OUTPUT = 40_003 + 3 + 1_000_000 + 2 + 3
TASKS = {"root", "unchecked", "fan0", "fan1", "fan2", "chain1", "chain2", "large", "length"} | {
    *("expand", "part0", "part1", "tail", "failing", "was_caught", "output")
}


def committed(store: ByteStore) -> set[str]:
    """The tasks that a resume finds committed and whole."""
    workflows = WorkflowStore(store)
    record = workflows.read_status(ID)
    if record is None:
        return set()
    claim = workflows.read_claim(ID, record.epoch)
    records = workflows.read_checkpoints(ID, since_epoch=claim.base_epoch).records
    found: set[str] = set()
    pending = allocate_ids(workflows.read_run(ID, record.epoch)[1], TaskIds())
    while pending:
        committed_one = records.get(pending.pop())
        if committed_one is not None:
            found.add(committed_one.task_id)
            pending.extend(committed_one.task_ids)
    return found


Begin = Callable[[testing.InProcessWorkflows], Any]


@dataclass
class Life:
    """What one process did until its end."""

    output: object = None
    error: BaseException | None = None
    has_died: bool = False
    writes: int = 0
    ran: Counter[str] | None = None


InProcess = Callable[[ByteStore], contextlib.AbstractContextManager[Any]]


def live(
    store: ByteStore,
    begin: Begin,
    *,
    at: int = -1,
    how: str = "after",
    in_process: InProcess = testing.in_process,
) -> Life:
    """Let a process begin something and follow it to its end, or to its death at a write."""
    calls.clear()
    existed, before = WorkflowStore(store).read_status(ID) is not None, committed(store)
    faulty, life = FaultyStore(store, at=at, how=how), Life()
    try:
        with in_process(faulty) as workflows:
            try:
                output = begin(workflows)
                wait([output.future(), faulty.died], return_when=FIRST_COMPLETED)
                if not faulty.died.done():
                    life.output = ray.get(output)
            finally:
                if faulty.died.done():
                    workflows.crash()
    except (WorkflowError, Killed) as exc:
        life.error = exc
    effects.join_tasks()
    life.has_died, life.writes, life.ran = faulty.died.done(), faulty.writes, Counter(calls)
    assert not before & life.ran.keys(), "a committed task ran again"
    assert before <= committed(store), "a checkpoint was lost"
    assert not existed or WorkflowStore(store).read_status(ID) is not None, "it was lost"
    return life


@contextlib.contextmanager
def with_a_journal_for_each_commit(store: ByteStore) -> Iterator[Any]:
    def make_manager(*, store: WorkflowStore, **given: Any) -> Manager:
        return Manager(store=WorkflowStore(store.bytes, segment_bytes=0), **given)

    manager = InProcessManager(store, make_manager=make_manager)
    with manager.running():
        yield SimpleNamespace(
            run_async=workflow.run_async, resume_async=workflow.resume_async, crash=manager.crash
        )


def run(workflows: testing.InProcessWorkflows) -> object:
    return workflows.run_async(graph(), workflow_id=ID)


def resume(workflows: testing.InProcessWorkflows) -> object:
    return workflows.resume_async(ID)


def go_on(workflows: testing.InProcessWorkflows) -> object:
    """What a person or Airflow does after a crash, not knowing how far the run had come."""
    try:
        return resume(workflows)
    except WorkflowNotResumableError:  # it was not stored when it crashed
        return run(workflows)


def each_crash(
    stores: Callable[[], ByteStore],
    begin: Begin,
    how: str,
    *,
    writes: int = 10,
    in_process: InProcess = testing.in_process,
) -> Iterator[ByteStore]:
    """The store after a crash at each write in turn, until the run has no more writes.

    :param writes: there are at least so many.
    """
    for at in itertools.count():
        store = stores()
        life = live(store, begin, at=at, how=how, in_process=in_process)
        if life.writes <= at:
            assert (life.output, life.error) == (OUTPUT, None)
            assert at >= writes
            return
        yield store


@pytest.fixture
def in_memory() -> Callable[[], ByteStore]:
    return MemoryStore


@pytest.fixture
def in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ByteStore]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here, only deaths
    numbers = itertools.count()
    return lambda: LocalStore(tmp_path / str(next(numbers)))


def test_without_a_crash_each_task_runs_once():
    life = live(MemoryStore(), run)
    assert life.output == OUTPUT
    assert life.ran == dict.fromkeys(TASKS, 1)


@pytest.mark.invariant(1)
@pytest.mark.parametrize("how", ["before", "after", "error"])
def test_a_run_goes_on_after_a_crash_at_any_write(in_memory, how: str):
    for store in each_crash(in_memory, run, how):
        life = live(store, go_on)
        assert life.output == OUTPUT
        assert committed(store) == TASKS - {"unchecked"}
        assert live(store, resume).ran == {}


def test_it_goes_on_too_where_each_commit_has_a_journal_of_its_own(in_memory):
    of_its_own = {"in_process": with_a_journal_for_each_commit}
    for store in each_crash(in_memory, run, "after", **of_its_own):
        assert live(store, go_on, **of_its_own).output == OUTPUT
    written = [entry.key for entry in store.list("v1/workflows")]
    assert sum(key.endswith(".journal") for key in written) > 2


@pytest.mark.invariant(1)
@pytest.mark.parametrize("how", ["before", "after", "torn"])
def test_a_run_in_files_goes_on_after_a_crash_at_any_write(in_files, how: str):
    for store in each_crash(in_files, run, how):
        assert live(store, go_on).output == OUTPUT


@pytest.mark.parametrize("how", ["before", "after", "error"])
def test_running_it_again_is_as_good_as_resuming_it(in_memory, how: str):
    for store in each_crash(in_memory, run, how):
        assert live(store, run).output == OUTPUT


@pytest.mark.parametrize("how", ["before", "after", "error"])
@pytest.mark.parametrize("broken", ["chain1", "tail", "output"])
def test_a_resume_after_a_failure_goes_on_after_a_crash_at_any_write(
    in_memory, broken: str, how: str
):
    def failed() -> ByteStore:
        store = in_memory()
        effects.broken.add(broken)
        assert isinstance(live(store, run).error, workflow.WorkflowExecutionError)
        effects.broken.clear()
        return store

    for store in each_crash(failed, resume, how, writes=3):
        assert live(store, resume).output == OUTPUT


@pytest.mark.parametrize("first", [2, 4, 6, 8, 10, 12])
def test_a_resume_after_a_crash_goes_on_after_another_one_at_any_write(in_memory, first: int):
    def crashed() -> ByteStore:
        store = in_memory()
        assert live(store, run, at=first).has_died
        return store

    for store in each_crash(crashed, go_on, "after", writes=2):
        assert live(store, go_on).output == OUTPUT


def test_crashes_at_every_write_one_after_the_other_end_all_the_same(in_memory):
    """Each life gets a little further than the one before, and in the end it is done."""
    store = in_memory()
    lives = [live(store, go_on, at=at) for at in range(60)]
    outputs = [life.output for life in lives if not life.has_died]
    assert outputs
    assert set(outputs) == {OUTPUT}
    assert sum(lives[0].ran.values()) == 0


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_deletion_is_finished_after_a_crash_at_any_write(in_memory, how: str):
    def done() -> ByteStore:
        store = in_memory()
        assert live(store, run).output == OUTPUT
        return store

    for at in itertools.count():
        store = done()
        faulty = FaultyStore(store, at=at, how=how)
        with contextlib.suppress(Killed), testing.in_process(faulty) as workflows:
            try:
                workflows.delete(ID)
            finally:
                workflows.crash()
        if not faulty.died.done():
            break
        with testing.in_process(store) as workflows:
            with contextlib.suppress(workflow.WorkflowNotFoundError):
                workflows.delete(ID)
            assert workflows.list_all() == []
        assert keys_of(store) == set()
        assert live(store, run).output == OUTPUT


def keys_of(store: ByteStore) -> set[str]:
    """All but what managers keep for all workflows."""
    shared = ("v1/leases/", "v1/changes/", "v1/index/")
    return {entry.key for entry in store.list("v1") if not entry.key.startswith(shared)}
