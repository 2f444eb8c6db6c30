"""Damaged objects: named, never taken for something else, and their tasks run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import effects
import pytest
import ray
from effects import calls

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    DataSaveError,
    WorkflowChangedError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.storage import LocalStore, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot

ID = "w"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # only to be quick
    with effects.fresh():
        yield


def named(task_id: str) -> dict[str, object]:
    return dict(workflow.options(task_id=task_id))


def note() -> None:
    effects.note(workflow.get_context().task_id)


@ray.remote
def number(value):
    note()
    return value


@ray.remote
def large(value):
    note()
    return bytes([value]) * 40_000


@ray.remote
def expand(value):
    note()
    part = number.options(**named("part")).bind(value)
    return workflow.continuation(large.options(**named("tail")).bind(part))


@ray.remote
def summary(*values):
    note()
    return [len(v) * v[0] if isinstance(v, bytes) else v for v in values]


def graph():
    return summary.options(**named("output")).bind(
        number.options(**named("small")).bind(1),
        large.options(**named("large")).bind(2),
        expand.options(**named("expand")).bind(3),
    )


OUTPUT = [1, 80_000, 120_000]
TASKS = ["small", "large", "expand", "part", "tail"]


@pytest.fixture
def finished(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    with testing.in_process(store) as workflows:
        assert workflows.run(graph(), workflow_id=ID) == OUTPUT
    calls.clear()
    return store


@pytest.fixture
def failed(tmp_path: Path) -> LocalStore:
    """Its last task failed; all others are committed."""
    store = LocalStore(tmp_path)
    effects.broken.add("output")
    with testing.in_process(store) as workflows, pytest.raises(WorkflowExecutionError):
        workflows.run(graph(), workflow_id=ID)
    assert sorted(calls) == sorted([*TASKS, "output"])
    calls.clear()
    effects.broken.clear()
    return store


def keys(store: LocalStore, kind: str) -> list[str]:
    return sorted(entry.key for entry in store.list("v1") if entry.key.endswith(kind))


def key_of(store: LocalStore, kind: str) -> str:
    [key] = keys(store, kind)
    return key


def value_key_of(store: LocalStore, task_id: str) -> str:
    workflows = WorkflowStore(store)
    record = workflows.read_status(ID)
    assert record is not None
    result = read_snapshot(workflows, record).result_of(task_id)
    assert result is not None
    assert result.blob is not None
    return result.blob.key


def truncate(store: LocalStore, key: str, length: int) -> None:
    store.put(key, store.get(key)[:length])


def flip(store: LocalStore, key: str, position: int, mask: int = 0x01) -> None:
    data = bytearray(store.get(key))
    data[position] ^= mask
    store.put(key, data)


def places(store: LocalStore, key: str) -> list[tuple[str, int]]:
    """Some ways to damage an object: where it may be cut off, which byte may be changed."""
    data = store.get(key)
    line = data.index(b"\n") + 1
    positions = {0, 5, line // 2, line, (line + len(data)) // 2, len(data) - 2, len(data) - 1}
    return [
        (how, place) for how in ("cut", "flip") for place in sorted(positions) if place < len(data)
    ]


def damage(store: LocalStore, key: str, how: str, place: int) -> None:
    if how == "cut":
        truncate(store, key, place)
    else:
        flip(store, key, place)


def each_damage(store: LocalStore, key: str) -> Iterator[str]:
    """Damage an object in one way after the other; it is whole again at the end."""
    before = {entry.key: store.get(entry.key) for entry in store.list("v1")}
    for how, place in places(store, key):
        calls.clear()
        damage(store, key, how, place)
        yield f"{how} {place}"
        for entry in list(store.list("v1")):
            if entry.key not in before:
                store.delete([entry.key])
        for other, data in before.items():
            store.put(other, data)


def read_everything(store: LocalStore) -> dict[str, object]:
    """All questions about a workflow: the answer, or the key of the damaged object."""
    questions: dict[str, Callable[[], object]] = {}
    with testing.in_process(store) as workflows:
        questions = {
            "status": lambda: workflows.get_status(ID).value,
            "output": lambda: workflows.get_output(ID),
            "large": lambda: workflows.get_output(ID, task_id="large")[0],
            "tail": lambda: workflows.get_output(ID, task_id="expand")[0],
            "metadata": lambda: workflows.get_metadata(ID)["status"],
            "task": lambda: workflows.get_metadata(ID, "large")["task_id"],
        }
        answers = {}
        for name, ask in questions.items():
            try:
                answers[name] = ask()
            except DataLoadError as exc:
                assert repr(exc.key) in str(exc)  # noqa: PT017
                answers[name] = exc.key
        return answers


WHOLE = {
    "status": "SUCCESSFUL",
    "output": OUTPUT,
    "large": 2,
    "tail": 3,
    "metadata": "SUCCESSFUL",
    "task": "large",
}


def test_nothing_is_damaged_at_first(finished: LocalStore):
    assert read_everything(finished) == WHOLE


# ---- a finished workflow


def test_a_damaged_status_is_named_by_every_question(finished: LocalStore):
    key = key_of(finished, f"SUCCESSFUL-{manager_of(finished)}.json")
    for how in each_damage(finished, key):
        assert set(read_everything(finished).values()) == {key}, how


def manager_of(store: LocalStore) -> str:
    [(_, key)] = WorkflowStore(store).list_statuses().items()
    return key.manager_id


def test_a_damaged_graph_is_named_by_every_question_that_needs_it(finished: LocalStore):
    key = key_of(finished, ".epoch")
    for how in each_damage(finished, key):
        answers = read_everything(finished)
        assert answers["status"] == answers["metadata"] == "SUCCESSFUL", how
        assert answers["output"] == answers["task"] == key, how


def test_a_damaged_journal_is_named_where_its_records_are_missing(finished: LocalStore):
    key = key_of(finished, ".journal")
    for how in each_damage(finished, key):
        answers = read_everything(finished)
        for name, answer in answers.items():
            assert answer in (WHOLE[name], key), (how, name)
        assert answers["output"] == key, how  # its record is the last one


@pytest.mark.parametrize(("task_id", "question"), [("large", "large"), ("expand", "tail")])
def test_a_damaged_value_is_named_by_each_call_that_reads_it(
    finished: LocalStore, task_id: str, question: str
):
    key = value_key_of(finished, task_id)
    for how in each_damage(finished, key):
        assert read_everything(finished) == WHOLE | {question: key}, how


def test_a_resume_repairs_the_damaged_output_of_a_successful_workflow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = LocalStore(tmp_path)
    with testing.in_process(store) as workflows:
        whole = workflows.run(large.options(**named("large")).bind(2), workflow_id=ID)
    key = value_key_of(store, "large")
    for how in each_damage(store, key):
        calls.clear()
        caplog.clear()
        with testing.in_process(store) as workflows:
            assert workflows.resume(ID) == whole, how
            assert workflows.get_status(ID) == "SUCCESSFUL"
        assert calls == ["large"], how
        assert key in caplog.text
    calls.clear()
    with testing.in_process(store) as workflows:
        assert workflows.resume(ID) == whole
    assert calls == []


def test_a_resume_of_a_successful_workflow_repairs_what_its_output_needs_and_no_more(
    finished: LocalStore,
):
    finished.delete(keys(finished, ".journal"))
    assert resume(finished) == OUTPUT
    assert sorted(calls) == sorted([*TASKS, "output"])
    calls.clear()
    finished.delete([value_key_of(finished, "large")])
    assert resume(finished) == OUTPUT
    assert calls == []


# ---- a failed workflow


def resume(store: LocalStore) -> object:
    with testing.in_process(store) as workflows:
        return workflows.resume(ID)


def test_without_damage_only_the_failed_task_runs_again(failed: LocalStore):
    assert resume(failed) == OUTPUT
    assert calls == ["output"]


def test_a_resume_from_a_damaged_status_or_graph_is_refused_with_its_key_and_the_way_out(
    failed: LocalStore,
):
    for kind, way_out in (
        (f"FAILED-{manager_of(failed)}.json", "or delete the workflow."),
        (".epoch", 'or run the workflow from scratch (on_existing="restart"), or delete it.'),
    ):
        key = key_of(failed, kind)
        for how in each_damage(failed, key):
            with pytest.raises(CorruptedDataError) as raised:
                resume(failed)
            assert raised.value.key == key, how
            assert "Restore the object from a backup" in str(raised.value)
            assert str(raised.value).endswith(way_out)
            assert calls == []


def test_a_workflow_whose_graph_is_damaged_can_be_run_from_scratch(failed: LocalStore):
    truncate(failed, key_of(failed, ".epoch"), 100)
    with testing.in_process(failed) as workflows:
        assert workflows.run(graph(), workflow_id=ID, on_existing="restart") == OUTPUT


@pytest.mark.parametrize("kind", [".json", ".epoch", ".journal"])
def test_a_damaged_workflow_can_be_deleted(failed: LocalStore, kind: str):
    for key in keys(failed, kind):
        truncate(failed, key, 20)
    with testing.in_process(failed) as workflows:
        workflows.delete(ID)
    shared = ("v1/leases/", "v1/changes/", "v1/index/")
    assert not [entry.key for entry in failed.list("v1") if not entry.key.startswith(shared)]


def test_the_tasks_of_a_damaged_journal_run_again(
    failed: LocalStore, caplog: pytest.LogCaptureFixture
):
    key = key_of(failed, ".journal")
    for how in each_damage(failed, key):
        caplog.clear()
        whole = set(WorkflowStore(failed).read_checkpoints(ID).records)
        assert resume(failed) == OUTPUT, how
        assert f"The stored object {key!r} is corrupted" in caplog.text, how
        assert not whole & set(calls), how
        assert len(calls) == len(set(calls)), how


@pytest.mark.invariant(1, 2)
@pytest.mark.parametrize(("task_id", "damaged"), [("large", "large"), ("expand", "tail")])
def test_only_the_task_of_a_damaged_value_runs_again(
    failed: LocalStore, task_id: str, damaged: str, caplog: pytest.LogCaptureFixture
):
    key = value_key_of(failed, task_id)
    for how in each_damage(failed, key):
        caplog.clear()
        assert resume(failed) == OUTPUT, how
        assert f"The stored object {key!r} is corrupted" in caplog.text, how
        assert calls == [damaged, "output"], how


def test_only_the_task_of_a_value_that_is_missing_runs_again(failed: LocalStore):
    failed.delete([value_key_of(failed, "large")])
    assert resume(failed) == OUTPUT
    assert calls == ["large", "output"]


def test_a_value_that_was_repaired_so_stays_repaired(failed: LocalStore):
    flip(failed, value_key_of(failed, "large"), -2)
    effects.broken.add("output")
    with pytest.raises(WorkflowExecutionError):
        resume(failed)
    calls.clear()
    effects.broken.clear()
    assert resume(failed) == OUTPUT
    assert calls == ["output"]


def test_all_values_may_be_damaged_at_once(failed: LocalStore):
    for key in keys(failed, ".value"):
        flip(failed, key, -2)
    assert resume(failed) == OUTPUT
    assert sorted(calls) == ["large", "output", "tail"]


# ---- damage is no change


def run_strictly(store: LocalStore, dag: Any) -> object:
    with testing.in_process(store) as workflows:
        return workflows.run(dag, workflow_id=ID, on_change="refuse")


@pytest.mark.parametrize("kind", [".journal", ".value"])
def test_a_strict_run_does_not_take_damage_for_a_change(failed: LocalStore, kind: str):
    for key in keys(failed, kind):
        for how in each_damage(failed, key):
            assert run_strictly(failed, graph()) == OUTPUT, how


def fail_at(store: LocalStore, dag: Any, *task_ids: str) -> None:
    """Run and resume it until each of the tasks has failed once: a journal for each."""
    for task_id in task_ids:
        effects.broken.add(task_id)
        with testing.in_process(store) as workflows, pytest.raises(WorkflowExecutionError):
            workflows.run(dag, workflow_id=ID)
        effects.broken.clear()
    calls.clear()


def test_a_dependent_of_a_damaged_task_is_used_and_compared_as_before(tmp_path: Path):
    def chain(value: int) -> Any:
        loaded = number.options(**named("load")).bind(value)
        cleaned = number.options(**named("clean")).bind(loaded)
        return summary.options(**named("output")).bind(cleaned)

    store = LocalStore(tmp_path)
    fail_at(store, chain(1), "clean", "output")
    truncate(store, keys(store, ".journal")[0], 20)
    assert sorted(WorkflowStore(store).read_checkpoints(ID).records) == ["clean"]
    with pytest.raises(WorkflowChangedError) as refused:
        run_strictly(store, chain(2))
    assert refused.value.changes == ["clean: what it takes is made of other arguments"]
    assert run_strictly(store, chain(1)) == [1]
    assert calls == ["output"]


def test_tasks_of_a_continuation_whose_creator_is_damaged_are_not_dropped_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def dag(*, is_sorted: bool) -> Any:
        rows = expand.options(**named("expand")).bind(3)
        if is_sorted:
            rows = number.options(**named("sort")).bind(rows)
        return summary.options(**named("output")).bind(rows)

    store = LocalStore(tmp_path)
    fail_at(store, dag(is_sorted=True), "part", "output")
    truncate(store, keys(store, ".journal")[0], 20)
    assert set(WorkflowStore(store).read_checkpoints(ID).records) == {"part", "tail", "sort"}
    with pytest.raises(WorkflowChangedError) as refused:
        run_strictly(store, dag(is_sorted=False))
    assert refused.value.changes == ["sort: it is not in the graph any more"]
    assert run_strictly(store, dag(is_sorted=True)) == [120_000]
    assert calls == ["output"]
    assert "not in its graph any more" not in caplog.text


# ---- what can't be read, and may be whole


class WithoutValues(LocalStore):
    """Large values can't be read: a right is missing, or a newer version has written them."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key.endswith(".value"):
            raise DataLoadError(f"Can't read {key!r}: Permission denied.", key=key)
        return super().get(key, start, length)


def test_a_value_that_can_not_be_read_is_kept_and_its_task_does_not_run_again(
    failed: LocalStore, tmp_path: Path
):
    with testing.in_process(WithoutValues(tmp_path)) as workflows:
        with pytest.raises(
            WorkflowExecutionError, match=r"Can't read '.*value': Permission denied"
        ):
            workflows.resume(ID)
        assert workflows.get_status(ID) == "RESUMABLE"
    assert calls == []
    assert resume(failed) == OUTPUT
    assert calls == ["output"]


class WithoutRoom(LocalStore):
    """A disk that has room for small objects only."""

    def put(self, key: str, data: Data) -> None:
        if key.endswith(".value"):
            raise DataSaveError(f"Can't write {key!r}: No space left on device.", key=key)
        super().put(key, data)


def test_on_a_full_disk_a_task_runs_once_and_not_for_each_of_its_retries(tmp_path: Path):
    dag = large.options(max_retries=-1, **named("large")).bind(2)
    with testing.in_process(WithoutRoom(tmp_path)) as workflows:
        with pytest.raises(WorkflowExecutionError, match="No space left on device"):
            workflows.run(dag, workflow_id=ID)
        assert workflows.get_status(ID) == "RESUMABLE"
    assert calls == ["large"]
    assert len(resume(LocalStore(tmp_path))) == 40_000


# ---- every byte


@pytest.mark.invariant(2)
def test_no_byte_of_a_status_can_change_unnoticed(finished: LocalStore):
    key = key_of(finished, f"SUCCESSFUL-{manager_of(finished)}.json")
    whole = WorkflowStore(finished).read_status(ID)
    no_byte_changes_unnoticed(finished, key, lambda store: store.read_status(ID), whole)


@pytest.mark.invariant(2)
def test_no_byte_of_a_graph_can_change_unnoticed(finished: LocalStore):
    key = key_of(finished, ".epoch")
    whole = WorkflowStore(finished).read_run(ID, 1)[1]
    no_byte_changes_unnoticed(finished, key, lambda store: store.read_run(ID, 1)[1], whole)


@pytest.mark.invariant(2)
def test_no_byte_of_a_journal_can_change_unnoticed(finished: LocalStore):
    key = key_of(finished, ".journal")
    whole = WorkflowStore(finished).read_checkpoints(ID).records

    def read(store: WorkflowStore) -> object:
        found = store.read_checkpoints(ID)
        assert found.records.items() <= whole.items()
        if found.damaged:
            raise found.damaged[0]
        return found.records

    no_byte_changes_unnoticed(finished, key, read, whole)


def no_byte_changes_unnoticed(
    store: LocalStore, key: str, read: Callable[[WorkflowStore], object], whole: object
) -> None:
    data, copy = store.get(key), MemoryStore()
    for entry in store.list("v1"):
        copy.put(entry.key, store.get(entry.key))
    for position in range(0, len(data), max(1, len(data) // 500)):
        for changed in (
            data[:position],
            data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :],
            data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :],
            data[:position] + data[position + 1 :],
        ):
            copy.put(key, changed)
            try:
                found = read(WorkflowStore(copy))
            except DataLoadError as exc:
                assert exc.key == key  # noqa: PT017
            else:
                assert found == whole, position


def test_a_damaged_lease_is_named(tmp_path: Path):
    store = WorkflowStore(LocalStore(tmp_path))
    lease = Lease(manager_id="m", actor_id="a", process=Process.current(), renewed_at=1.0)
    store.leases.write(lease)
    path = tmp_path / "v1/leases/m.json"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position])
        with pytest.raises(CorruptedDataError, match=r"v1/leases/m\.json"):
            store.leases.read("m")


def test_a_damaged_lease_keeps_no_other_manager_from_starting(
    failed: LocalStore, caplog: pytest.LogCaptureFixture
):
    failed.put("v1/leases/torn.json", b'{"body":')
    assert resume(failed) == OUTPUT
    assert "The stored object 'v1/leases/torn.json' is corrupted" in caplog.text
