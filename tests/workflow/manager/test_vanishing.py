"""The storage vanishes under a run: it ends with word of that, never as if all were well."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import effects
import pytest
import ray
from hurried import in_process
from sample_records import status_record
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore, keys, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = [pytest.mark.invariant(3), pytest.mark.invariant(4), pytest.mark.timeout(60)]


class FarStore(MemoryStore):
    """Each look is a request."""

    reads_at_once = 16


@pytest.fixture(params=["memory", "far", "local", "arrow"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ByteStore]:
    stores: dict[str, Callable[[], ByteStore]] = {
        "memory": MemoryStore,
        "far": FarStore,
        "local": lambda: open_store(str(tmp_path / "storage")),
        "arrow": lambda: arrow_store(tmp_path / "storage"),
    }
    with effects.fresh():
        yield stores[request.param]()


def arrow_store(root: Path) -> ByteStore:
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    from airflow_provider_rayworkflow.workflow.storage.backends.arrow import ArrowStore

    root.mkdir()
    return ArrowStore(SubTreeFileSystem(str(root), LocalFileSystem()), "", location=str(root))


@ray.remote
def first():
    effects.note("first")


@ray.remote
def second(_):
    effects.note("second")
    effects.gate.wait()
    return bytes(50_000)


@ray.remote
def third(data):
    effects.note("third")
    return len(data)


GRAPH = third.bind(second.bind(first.bind()))


def claim(store: ByteStore) -> None:
    store.delete(["v1/workflows/w/00000001.epoch"])


def folder(store: ByteStore) -> None:
    store.delete_folder("v1/workflows/w")


def everything(store: ByteStore) -> None:
    WorkflowStore(store).delete("w")


@pytest.mark.parametrize("vanish", [claim, folder, everything], ids=lambda vanish: vanish.__name__)
def test_a_workflow_that_is_deleted_while_it_runs_says_so(
    store: ByteStore, vanish: Callable[[ByteStore], None]
):
    with in_process(store, look_s=0.0) as workflows:
        output = workflows.run_async(GRAPH, workflow_id="w")
        wait_until(lambda: "second" in effects.calls)
        vanish(store)
        effects.gate.set()
        with pytest.raises(OwnershipLostError, match=r"w/00000001\.epoch' was deleted"):
            ray.get(output)
        assert "third" not in effects.calls
        found = StatusReader(WorkflowStore(store)).read("w")
        if vanish is everything:
            assert found is None  # nothing is written in its place
        else:
            assert found is not None
            assert found.status is workflow.WorkflowStatus.RESUMABLE
            assert "was deleted while it ran" in found.record.failure.message
        # It may be run again from the start, under its id.
        assert workflows.run(GRAPH, workflow_id="w", on_existing="restart") == 50_000


def test_one_that_writes_nothing_for_long_hears_of_it_with_the_next_renewal(store: ByteStore):
    with in_process(store, renewal_s=0.01) as workflows:
        output = workflows.run_async(GRAPH, workflow_id="w")
        wait_until(lambda: "second" in effects.calls)
        folder(store)
        with pytest.raises(OwnershipLostError, match="was deleted while it ran"):
            ray.get(output)
        effects.gate.set()
        effects.join_tasks()  # while there is a manager: they use its object store


def test_the_progress_of_a_deleted_workflow_is_not_written(store: ByteStore):
    with in_process(store, progress_s=0.01, look_s=0.0) as workflows:
        output = workflows.run_async(GRAPH, workflow_id="w")
        wait_until(lambda: "second" in effects.calls)
        everything(store)
        effects.gate.set()
        with pytest.raises(OwnershipLostError):
            ray.get(output)
        assert list(store.list("v1/status")) == []


class Late:
    """A store in which a status is written as soon as the folder of the statuses is deleted, once.

    All else is the inner one's.
    """

    def __init__(self, store: ByteStore, late: StatusRecord) -> None:
        self._store = store
        self._late: StatusRecord | None = late

    def delete_folder(self, folder: str) -> None:
        self._store.delete_folder(folder)
        if self._late is not None and folder == keys.status_folder("w"):
            late, self._late = self._late, None
            WorkflowStore(self._store).write_status(late)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_last_word_that_comes_while_a_workflow_is_deleted_goes_with_it(store: ByteStore):
    """Its manager finds the claim gone, and the status still there."""
    late = status_record(WorkflowStatus.RESUMABLE, number=1)
    WorkflowStore(store).write_status(replace(late, status=WorkflowStatus.RUNNING, number=0))
    given = Late(store, late)
    everything(given)
    assert given._late is None
    assert list(store.list("v1/status")) == []


def test_a_root_that_is_deleted_while_workflows_run_ends_them_with_word_of_it(tmp_path: Path):
    root = tmp_path / "storage"
    with effects.fresh(), testing.in_process(str(root)) as workflows:
        outputs = [workflows.run_async(GRAPH, workflow_id=f"w{number}") for number in range(3)]
        wait_until(lambda: effects.calls.count("second") == 3)
        shutil.rmtree(root)
        effects.gate.set()
        for output in outputs:
            with pytest.raises(OwnershipLostError, match="was deleted while it ran"):
                ray.get(output)
        assert workflows.run(GRAPH, workflow_id="w0") == 50_000
