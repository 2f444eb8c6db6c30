"""Functions, and objects of classes, as arguments: their code counts as the code of the tasks that take them."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

import pytest
from effects import calls, note

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.timeout(60)]

_SOURCE = """
import effects
from airflow_provider_rayworkflow import workflow

def added(x):
    return x + {number}

def key(x):
    return "{prefix}" + str(x)

class Adder:
    def applied(self, x):
        return x + {number}

@workflow.task(cache=workflow.Cache())
def kept(x, adds):
    effects.note("kept")
    return adds.applied(x) if isinstance(adds, Adder) else adds(x) if callable(adds) else adds["by"](x)

@workflow.task
def applied(x, adds=None):
    effects.note("applied")
    return (adds(x) if adds else x) * {factor}
"""


@pytest.fixture
def imported(monkeypatch):
    def imported(*, number: int = 10, prefix: str = "a", factor: int = 1) -> Any:
        module = ModuleType("a_dag_file")
        monkeypatch.setitem(sys.modules, "a_dag_file", module)
        source = _SOURCE.format(number=number, prefix=prefix, factor=factor)
        exec(compile(source, "a_dag_file.py", "exec"), vars(module))
        return module

    return imported


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(lambda file: file.kept.map([1], adds=file.added), id="a map's function"),
        pytest.param(lambda file: file.kept.map([1], adds={"by": file.added}), id="in a dict"),
        pytest.param(lambda file: file.kept.map([1], adds=file.Adder()), id="a map's object"),
        pytest.param(lambda file: file.kept.starmap([(1, file.added)]), id="an item"),
        pytest.param(lambda file: file.kept(1, file.Adder()), id="an object"),
    ],
)
def test_a_result_of_other_code_is_not_taken_from_the_cache(
    workflows: InProcessWorkflows, imported, node
):
    def run(number: int, workflow_id: str) -> int:
        result = workflows.run(node(imported(number=number)), workflow_id=workflow_id)
        return result if isinstance(result, int) else result[0]

    assert [run(10, "first"), run(10, "second"), run(20, "third")] == [11, 11, 21]
    assert calls == ["kept", "kept"]


@pytest.mark.parametrize(
    ("on_change", "expected"), [("reuse", [11, 12]), ("rerun_changed", [21, 22])]
)
def test_the_code_of_a_maps_function_counts_for_its_items(
    workflows: InProcessWorkflows, imported, on_change, expected
):
    for number in (10, 20):
        file = imported(number=number)
        node = file.applied.map([1, 2], adds=file.added)
        result = workflows.run(node, workflow_id="w", on_change=on_change)
    assert result == expected


def test_the_code_of_a_maps_key_counts(workflows: InProcessWorkflows, imported):
    for prefix in ("a", "b"):
        file = imported(prefix=prefix)
        node = file.applied.map([1], key=file.key)
        result = workflows.run(node, workflow_id="w", on_change="rerun_changed")
    assert result.keys == ["b1"]


def test_a_maps_own_function_counts_beside_one_that_it_takes(
    workflows: InProcessWorkflows, imported
):
    for factor in (2, 3):
        file = imported(factor=factor)
        node = file.applied.map([5], adds=file.added)
        result = workflows.run(node, workflow_id="w", on_change="rerun_changed")
    assert result == [45]


def test_a_version_stands_for_the_functions_that_a_map_takes(
    workflows: InProcessWorkflows, imported
):
    for number in (10, 20):
        file = imported(number=number)
        node = file.applied.with_options(version="1").map([1], adds=file.added)
        result = workflows.run(node, workflow_id="w", on_change="rerun_changed")
    assert result == [11]
    assert calls == ["applied"]


def test_a_map_whose_code_is_the_same_runs_nothing(workflows: InProcessWorkflows, imported):
    retry = workflow.Retry(attempts=2, on=(ValueError, OSError))
    for _ in range(2):
        file = imported()
        task = file.applied.with_options(retry=retry)
        node = task.map([1, 2], adds=file.added, key=file.key)
        workflows.run(node, workflow_id="w", on_change="refuse")
    assert calls == ["applied", "applied"]


def test_what_a_library_keeps_in_its_variables_is_no_change(
    workflows: InProcessWorkflows, monkeypatch
):
    """Python's ``logging`` has the time when it was imported, for one, and was other code in each process."""
    for started in (1.0, 2.0):
        monkeypatch.setattr(logging, "_startTime", started)
        workflows.run(loud(logging.getLogger("a")), workflow_id="w", on_change="refuse")
    assert calls == ["a"]


@workflow.task
def loud(log: logging.Logger) -> str:
    note(log.name)
    return log.name
