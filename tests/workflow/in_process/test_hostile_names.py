"""Ids and names of every kind: all that are allowed work, none leaves the root or meets another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import effects
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing

ALLOWED = [
    "report",
    "Report",
    "REPORT",
    "a/b",
    "a\\b",
    "/absolute/path",
    "C:\\path",
    "trailing/",
    "//",
    "...",
    "..a/b..",
    ".hidden",
    "~",
    "-rf",
    "%",
    "%2e%2e",
    "%2f",
    "%00",
    "a%46b",
    "aFb",
    "a b",
    " ",
    "*?<>|\"'",
    "$(id);`id`",
    "{{ ds }}",
    "é",
    "e\u0301",  # the same to the eye
    "日本語",
    "🙂",
    "\u202e",  # writes what follows from right to left
    "ﬁ",
    "CON",
    "NUL.json",
    "00000001-0000-RUNNING-x.json",
    "00000001.epoch",
    "v1",
    "a" * 200,
    "a" * 255,
    "A" * 255,
    "🙂" * 255,  # 1,020 bytes
    "🙂" * 254 + "x",
]
REFUSED = ["", ".", "..", "../x", "a/../b", "a/..", "a\\..\\b", "./a", "a\x00b", "a\nb", "a" * 256]
REFUSED += ["\ud800", "a\tb", "\x7f"]


@ray.remote
def echo(value):
    return value


@ray.remote
def broken(value):
    raise ValueError(value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with something beside it that no call may touch."""
    (tmp_path / "beside").write_text("as before")
    return tmp_path / "deep" / "root"


@pytest.fixture
def workflows(root: Path) -> Iterator[testing.InProcessWorkflows]:
    with effects.fresh(), testing.in_process(str(root)) as workflows:
        yield workflows


def files_beside(root: Path) -> list[str]:
    top = root.parents[1]
    return [str(path) for path in top.rglob("*") if path.is_file() and root not in path.parents]


def test_every_id_names_a_workflow_of_its_own_below_the_root(workflows, root: Path):
    for number, workflow_id in enumerate(ALLOWED):
        assert workflows.run(echo.bind(number), workflow_id=workflow_id) == number
    assert dict(workflows.list_all()) == dict.fromkeys(ALLOWED, "SUCCESSFUL")
    for number, workflow_id in enumerate(ALLOWED):
        assert workflows.get_status(workflow_id) == "SUCCESSFUL"
        assert workflows.get_output(workflow_id) == number
    assert files_beside(root) == [str(root.parents[1] / "beside")]


def test_deleting_one_leaves_all_others(workflows):
    for workflow_id in ALLOWED:
        workflows.run(echo.bind(1), workflow_id=workflow_id)
    for number, workflow_id in enumerate(ALLOWED, start=1):
        workflows.delete(workflow_id)
        assert {found for found, _ in workflows.list_all()} == set(ALLOWED[number:])


def files_of_workflows(root: Path) -> list[Path]:
    """All but the index, which a manager makes by the clock."""
    index = root / "v1" / "index"
    return sorted(path for path in root.rglob("*") if not path.is_relative_to(index))


@pytest.mark.invariant(9)
@pytest.mark.parametrize("workflow_id", REFUSED, ids=ascii)
def test_an_id_that_can_not_be_is_refused_before_anything_is_written(
    workflows, root: Path, workflow_id: str
):
    before = files_of_workflows(root)
    with pytest.raises(ValueError, match="workflow id"):
        workflows.run(echo.bind(1), workflow_id=workflow_id)
    assert files_of_workflows(root) == before


def test_file_names_stay_apart_where_case_and_composition_do_not_count(workflows, root: Path):
    for workflow_id in ALLOWED:
        workflows.run(echo.bind(1), workflow_id=workflow_id)
    for folder in ("status", "workflows"):
        names = [path.name for path in (root / "v1" / folder).iterdir()]
        assert len(names) == len(ALLOWED)
        assert len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(names)
        assert max(len(name.encode()) for name in names) <= 255


@pytest.mark.parametrize("name", [*ALLOWED, "..", "../../x", "a\nb", "\x00", "x" * 1_024])
def test_a_task_may_have_any_name(workflows, root: Path, name: str):
    named = workflow.options(task_id=name)
    large = echo.options(**named).bind(bytes(40_000))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(broken.bind(large), workflow_id="w")
    assert workflows.get_output("w", task_id=name) == bytes(40_000)
    assert workflows.get_metadata("w", name)["user_metadata"] == {}
    assert files_beside(root) == [str(root.parents[1] / "beside")]


def test_metadata_that_is_huge_or_nested_too_deep_is_refused(workflows, root: Path):
    before = files_of_workflows(root)
    with pytest.raises(ValueError, match="262156 bytes as JSON, and may have 262144"):
        workflows.run(echo.bind(1), workflow_id="w", metadata={"text": "x" * 262_144})
    nested: dict = {}
    for _ in range(100_000):
        nested = {"in": nested}
    with pytest.raises(ValueError, match="metadata is nested too deep"):
        workflows.run(echo.bind(1), workflow_id="w", metadata=nested)
    assert files_of_workflows(root) == before


def test_tasks_whose_names_are_alike_do_not_meet(workflows):
    names = [*ALLOWED, "..", "a\nb"]
    tasks = [
        echo.options(**workflow.options(task_id=name)).bind(bytes(40_000 + number))
        for number, name in enumerate(names)
    ]

    @ray.remote
    def sizes(*values):
        return [len(value) for value in values]

    assert workflows.run(sizes.bind(*tasks)) == [40_000 + n for n in range(len(names))]
