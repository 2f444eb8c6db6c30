"""How commits become segments of a journal, and how these are read."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_rayworkflow.workflow.model.records import Encoding, Form, Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter

KIB = 1024


def record(task_id: str, size: int) -> TaskRecord:
    return TaskRecord(
        task_id=task_id,
        result=Result(form=Form.VALUE, encoding=Encoding.JSON, inline=bytes(size)),
    )


class Distant(MemoryStore):
    """Each read is a request."""

    reads_at_once = 4


def commit(store: MemoryStore, *sizes: int) -> None:
    """Commit one record of each size, one after the other."""
    journal = JournalWriter(store, "w", 1)
    for number, size in enumerate(sizes):
        journal.commit([record(f"t{number}", size)])


def tasks_of_segments(store: MemoryStore) -> list[int]:
    """How many records each segment has."""
    keys = sorted(entry.key for entry in store.list("v1/workflows/w"))
    return [store.get(key).count(b'"task":') for key in keys]


@pytest.mark.parametrize(
    ("sizes", "segments"),
    [
        (20 * [10 * KIB], [7, 7, 6]),
        (12 * [100 * KIB], [7, 5]),
        (6 * [3000 * KIB], [2, 2, 2]),
        ([200 * KIB, *8 * [KIB]], [4, 5]),
    ],
    ids=["64 KiB", "3 times what was added", "4 MiB", "small ones after a large one"],
)
def test_a_segment_is_written_again_while_that_costs_little(sizes: list[int], segments: list[int]):
    commit(store := Distant(), *sizes)
    assert tasks_of_segments(store) == segments
    found = WorkflowStore(store).read_checkpoints("w")
    assert (list(found.records), found.damaged) == ([f"t{n}" for n in range(len(sizes))], [])


def test_in_files_a_segment_is_never_long():
    commit(store := MemoryStore(), *4 * [100 * KIB])
    assert tasks_of_segments(store) == [1, 1, 1, 1]


def test_segments_are_read_at_the_same_time_where_that_is_better():
    at_once = threading.Barrier(4, timeout=60)

    class Waiting(Distant):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            at_once.wait()
            return super().get(key, start, length)

    commit(store := Waiting(), *16 * [3000 * KIB])
    assert len(list(store.list("v1/workflows/w"))) == 8
    assert list(WorkflowStore(store).read_checkpoints("w").records) == [f"t{n}" for n in range(16)]
