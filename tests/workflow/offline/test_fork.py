"""A fork shares what is finished, and then the two workflows have nothing to do with each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import effects
import pytest
import ray
from effects import broken, calls
from faulty import FaultyStore, Killed

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    UntrustedDataError,
    WorkflowAlreadyExistsError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

LARGE = 200_000


pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture
def workflows(tmp_path: Path) -> Iterator[InProcessWorkflows]:
    with testing.in_process(str(tmp_path)) as workflows:
        yield workflows


@ray.remote
def load(size):
    effects.note("load")
    return b"x" * size


@ray.remote
def split(data):
    effects.note("split")
    return workflow.continuation(measure.bind(data))


@ray.remote
def measure(data):
    effects.note("measure")
    return len(data)


@ray.remote
def end(length):
    effects.note("end")
    return length + 1


def dag(size=LARGE):
    def named(function, name):
        return function.options(**workflow.options(task_id=name))

    loaded = named(load, "load").bind(size)
    return named(end, "end").bind(named(split, "split").bind(loaded))


def files(root: Path, workflow_id: str) -> dict[str, Path]:
    folder = root / "v1" / "workflows" / workflow_id
    return {path.name: path for path in folder.glob("*") if not path.name.startswith(".")}


def test_a_fork_of_a_successful_workflow_has_its_output_without_running(workflows):
    assert workflows.run(dag(), workflow_id="w") == LARGE + 1
    calls.clear()
    workflows.fork("w", "copy")
    assert workflows.get_status("copy") == "RESUMABLE"
    assert workflows.resume("copy") == LARGE + 1
    assert calls == []
    assert workflows.get_status("w") == "SUCCESSFUL"


def test_a_fork_has_the_metadata_and_belongs_to_no_task_instance(workflows):
    metadata = {"team": "data", "airflow": {"dag_id": "d", "task_id": "t"}}
    workflows.run(dag(), workflow_id="w", metadata=metadata)
    workflows.fork("w", "copy")
    assert workflows.get_metadata("copy")["user_metadata"] == {"team": "data"}


@pytest.mark.parametrize(
    ("from_task", "called"),
    [
        ("load", ["load", "split", "measure", "end"]),
        ("split", ["split", "measure", "end"]),
        ("end", ["end"]),
    ],
)
def test_a_fork_leaves_out_a_task_and_what_depends_on_it(workflows, from_task, called):
    workflows.run(dag(), workflow_id="w")
    calls.clear()
    workflows.fork("w", "copy", from_task=from_task)
    assert workflows.resume("copy") == LARGE + 1
    assert calls == called


def test_a_fork_from_a_task_of_a_continuation(workflows):
    workflows.run(dag(), workflow_id="w")
    calls.clear()
    [child] = [task.task_id for task in workflows.plan(None, "w").tasks if task.creator == "split"]
    workflows.fork("w", "copy", from_task=child)
    assert workflows.resume("copy") == LARGE + 1
    assert calls == ["measure", "end"]


def test_a_canceled_and_a_failed_workflow_can_be_forked(workflows):
    broken.add("end")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(dag(), workflow_id="w")
    broken.clear()
    workflows.fork("w", "of a failed one")
    workflows.cancel("w")
    workflows.fork("w", "of a canceled one")
    calls.clear()
    for name in ("of a failed one", "of a canceled one"):
        assert workflows.resume(name) == LARGE + 1
    assert calls == ["end", "end"]
    assert workflows.get_status("w") == "CANCELED"


def test_a_fork_runs_another_graph(workflows):
    workflows.run(dag(), workflow_id="w")
    calls.clear()
    workflows.fork("w", "copy")
    assert workflows.run(dag(LARGE + 1), workflow_id="copy") == LARGE + 2
    assert calls == ["load", "split", "measure", "end"]
    assert workflows.get_output("w") == LARGE + 1


def test_large_values_are_shared_and_deleting_either_leaves_the_other_whole(
    workflows, tmp_path: Path
):
    for gone, stays in (("w", "copy"), ("copy", "w")):
        workflows.run(dag(), workflow_id="w")
        workflows.fork("w", "copy")
        [value] = [path for name, path in files(tmp_path, "w").items() if name.endswith(".value")]
        [other] = [
            path for name, path in files(tmp_path, "copy").items() if name.endswith(".value")
        ]
        assert os.path.samefile(value, other)
        workflows.delete(gone)
        assert len(workflows.get_output(stays, task_id="load")) == LARGE if stays == "w" else True
        assert workflows.resume(stays, from_task="split") == LARGE + 1
        workflows.delete(stays)


def test_a_fork_of_a_fork_knows_its_results_again(workflows):
    workflows.run(dag(), workflow_id="w")
    workflows.fork("w", "one")
    workflows.delete("w")
    workflows.fork("one", "two")
    workflows.delete("one")
    calls.clear()
    assert workflows.run(dag(), workflow_id="two", on_change="refuse") == LARGE + 1
    assert calls == []


def test_the_values_of_a_fork_are_signed_for_it(
    workflows, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, "a secret")
    workflows.run(dag(), workflow_id="w")
    workflows.fork("w", "copy", from_task="split")
    workflows.delete("w")
    calls.clear()
    assert workflows.resume("copy") == LARGE + 1
    assert calls == ["split", "measure", "end"]
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, "another secret")
    with pytest.raises(UntrustedDataError):
        WorkflowStore(LocalStore(tmp_path)).read_claim("copy", 1)


def test_a_fork_needs_a_workflow_and_an_id_that_is_free(workflows, tmp_path: Path):
    workflows.run(dag(10), workflow_id="w")
    with pytest.raises(WorkflowNotFoundError, match="missing"):
        workflows.fork("missing", "copy")
    with pytest.raises(WorkflowAlreadyExistsError, match=r"\[id=w\] already exists .* or delete"):
        workflows.fork("w", "w")
    with pytest.raises(ValueError, match="no task 'tidy' to restart from"):
        workflows.fork("w", "copy", from_task="tidy")
    assert files(tmp_path, "copy") == {}
    workflows.fork("w", "copy")


# The claim, one large value, the journal, what is about to change, the status, what has changed.
LAST_WRITE = 5


@pytest.mark.parametrize("how", ["before", "after", "torn", "error"])
def test_a_crash_leaves_no_half_fork(tmp_path: Path, how: str):
    with testing.in_process(str(tmp_path)) as workflows:
        workflows.run(dag(), workflow_id="w")
    store = LocalStore(tmp_path)
    number = 0
    while True:
        name = f"copy-{number}"
        faulty = FaultyStore(store, at=number, how=how)
        try:
            fork(WorkflowStore(faulty), "w", name, from_task="end", now=1.0)
        except (Killed, Exception):
            is_there = WorkflowStore(store).read_status(name) is not None
            assert is_there == (
                number == LAST_WRITE or (number == LAST_WRITE - 1 and how == "after")
            )
            if not is_there:
                fork(WorkflowStore(store), "w", name, from_task="end", now=2.0)
            with testing.in_process(str(tmp_path)) as workflows:
                calls.clear()
                assert workflows.resume(name) == LARGE + 1
                assert calls == ["end"]
            number += 1
        else:
            break
    # That the status was written need not be noted for the fork to be done.
    assert number == LAST_WRITE + (how != "error")
