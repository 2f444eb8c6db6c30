"""Functions of a DAG file are corrected: what of them runs again, in a process, policy by policy."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.file import get_unique_dag_module_name
from dag_edits import CHANGES, FILE, FIX, REFUSED, Edit, edited

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows, in_process

SAME = ["constant", "lambda", "part 1", "part 2", "shift", "split"]


class Versions:
    """Versions of the DAG file, each in a folder of its own, as a bundle of Airflow has them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._monkeypatch.setenv("WITNESS", str(folder))

    def graph(self, *edits: Edit) -> Any:
        """The graph of a version, which is imported as Airflow does it."""
        file = self._folder / f"version {len(edits)}" / FILE.name
        file.parent.mkdir()
        file.write_text(edited(FILE.read_text(), edits))
        name = get_unique_dag_module_name(str(file))
        spec = spec_from_loader(name, loader := SourceFileLoader(name, str(file)))
        assert spec is not None
        self._monkeypatch.setitem(sys.modules, name, module := module_from_spec(spec))
        loader.exec_module(module)
        return WorkflowDefinition.load(module.daily, {"day": module.DAY}).build_graph()

    def ran(self) -> list[str]:
        """What has run since the last call, sorted."""
        ran = self._folder / "w"
        names = sorted(ran.read_text().splitlines()) if ran.exists() else []
        ran.unlink(missing_ok=True)
        return names


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    return Versions(tmp_path, monkeypatch)


def fail(workflows: InProcessWorkflows, versions: Versions) -> None:
    with pytest.raises(workflow.WorkflowExecutionError, match="a bug"):
        workflows.run(versions.graph(), workflow_id="w")
    assert versions.ran() == sorted(
        [*SAME, "clean", "extra 1", "extra 2", "load", "report"],
    )


@pytest.mark.parametrize("on_change", ["reuse", "rerun_changed", "refuse"])
def test_a_fix_alone_repeats_nothing_under_any_policy(versions: Versions, on_change: Any):
    with in_process() as workflows:
        fail(workflows, versions)
        output = workflows.run(versions.graph(FIX), workflow_id="w", on_change=on_change)
    assert versions.ran() == ["report"]
    assert output == 22 + 1000 + 100 + 10 + 3 + 1 + 2


@pytest.mark.parametrize(
    ("on_change", "ran", "output"),
    [
        ("reuse", [], 24 + 1000 + 100 + 10 + 3 + 1 + 3),
        (
            "rerun_changed",
            # The first task of the continuation is the same as before.
            ["constant", "lambda", "part 3", "shift", "split"],
            24 + 2000 + 200 + 15 + 4 + 1 + 3,
        ),
    ],
)
def test_a_changed_task_runs_as_the_policy_says(
    versions: Versions, on_change: Any, ran: list[str], output: int
):
    with in_process() as workflows:
        fail(workflows, versions)
        graph = versions.graph(FIX, *CHANGES)
        assert workflows.run(graph, workflow_id="w", on_change=on_change) == output
    assert versions.ran() == sorted([*ran, "clean", "extra 1", "extra 3", "load", "report"])


def test_changed_tasks_are_refused_and_listed(versions: Versions):
    with in_process() as workflows:
        fail(workflows, versions)
        with pytest.raises(workflow.WorkflowChangedError) as caught:
            workflows.run(versions.graph(FIX, *CHANGES), workflow_id="w", on_change="refuse")
        assert workflows.get_status("w") == "FAILED"
    assert caught.value.changes == REFUSED
    assert versions.ran() == []
