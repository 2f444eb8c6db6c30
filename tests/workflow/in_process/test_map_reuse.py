"""What graphs with maps and gathers find again of what they had: each task its own, and as much as it can."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowChangedError

called: list[Any] = []
broken: set[Any] = set()


@pytest.fixture
def workflows():
    called.clear()
    broken.clear()
    with testing.in_process() as found:
        yield found


def take() -> list[Any]:
    found = sorted(called)
    called.clear()
    return found


@workflow.task
def source(value: Any) -> Any:
    return value


@workflow.task
def same(value: Any) -> Any:
    called.append(value)
    return value


@workflow.task
def joined(*values: Any) -> list[Any]:
    return [list(value) for value in values]


@workflow.task
def stop(value: Any) -> Any:
    """Keeps a workflow from being successful, so that it is run again."""
    raise ValueError("stop")


def stopped(workflows: Any, node: Any, task_id: str) -> Any:
    """The result of a task of a workflow that goes on with this graph and ends with a failure."""
    with pytest.raises(workflow.WorkflowExecutionError, match="stop"):
        workflows.run(stop(node), workflow_id="w")
    return workflows.get_output("w", task_id=task_id)


# ---- continuations


@workflow.task
def two_gathers(value: int) -> Any:
    return joined(workflow.gather([same(value)]), workflow.gather([same(10), same(value + 1)]))


def test_gathers_of_one_continuation_find_their_own_results_again(workflows):
    for value in (1, 2, 1):
        result = workflows.run(two_gathers(source(value)), workflow_id="w")
        assert result == [[value], [10, value + 1]]
    assert take().count(10) == 1


@workflow.task
def fewer_gathers(count: int) -> Any:
    return joined(*(workflow.gather([same(number)]) for number in range(count)))


def test_a_continuation_may_have_more_or_fewer_gathers_than_before(workflows):
    for count in (2, 3, 1, 2):
        result = workflows.run(fewer_gathers(source(count)), workflow_id="w")
        assert result == [[number] for number in range(count)]


@workflow.task
def around_a_gather(value: int) -> Any:
    return joined([same("first")], workflow.gather([same("second")]), [same(f"third {value}")])


@workflow.task
def around_a_map(value: int) -> Any:
    return joined([same("first")], same.map({"a": "second"}), [same(f"third {value}")])


@pytest.mark.parametrize("task", [around_a_gather, around_a_map], ids=["gather", "map"])
def test_a_continuation_finds_the_tasks_beside_its_gathers_and_maps(workflows, task):
    workflows.run(task(source(1)), workflow_id="w")
    assert take() == ["first", "second", "third 1"]
    assert workflows.run(task(source(2)), workflow_id="w") == [["first"], ["second"], ["third 2"]]
    assert take() == ["third 2"]


# ---- functions of one name


_MODULE = """
from airflow_provider_rayworkflow import workflow

@workflow.task{options}
def load(value):
    return __name__, value
"""


def of_module(name: str, options: str = "") -> Any:
    module = ModuleType(name)
    exec(compile(_MODULE.format(options=options), f"{name}.py", "exec"), vars(module))
    return module.load


def closure(region: str) -> Any:
    @workflow.task
    def load(value: int) -> Any:
        return region, value

    return load


@pytest.mark.parametrize(
    "make",
    [of_module, closure, lambda name: of_module(name, '(name="load", version="1")')],
    ids=["of two modules", "made by one function", "of one name and version"],
)
def test_maps_over_functions_of_one_name_keep_to_their_own_items(workflows, make):
    for names in (("north", "south"), ("south", "north"), ("east", "south", "north")):
        node = joined(*(make(name).map([1, 2]) for name in names))
        assert stopped(workflows, node, "joined") == [[(n, 1), (n, 2)] for n in names]


def test_a_map_over_a_function_of_another_module_takes_no_items_of_the_former_one(workflows):
    for name in ("north", "south"):
        node = joined(of_module(name).map([1]))
        assert stopped(workflows, node, "joined") == [[(name, 1)]]


@pytest.mark.parametrize("make", [of_module, closure])
def test_functions_of_one_name_keep_to_their_own_checkpoints(workflows, make):
    for names in (("north", "south"), ("south", "north")):
        node = joined(*(make(name)(1) for name in names))
        assert stopped(workflows, node, "joined") == [[n, 1] for n in names]


# ---- options of a map


@workflow.task
def fragile(value: Any) -> Any:
    called.append(value)
    if value in broken:
        raise ValueError("broken")
    return value


def broken_run(workflows: Any) -> None:
    """Leaves ``fragile[1]`` failed, and ``fragile[0]`` committed."""
    broken.add("b")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(joined(fragile.map(["a", "b"])), workflow_id="w", on_failure="finish")
    called.clear()


@pytest.mark.parametrize(
    ("of_task", "of_map"),
    [
        ({"timeout_s": 60}, {}),
        ({"memory": 10_000}, {}),
        ({"metadata": {"owner": "Ann"}}, {}),
        ({}, {"max_concurrency": 1}),
        ({}, {"batch_size": 2}),
    ],
    ids=["time limit", "option of Ray", "metadata", "max_concurrency", "batch_size"],
)
def test_other_options_of_a_map_are_no_change(workflows, of_task, of_map):
    broken_run(workflows)
    broken.clear()
    node = joined(fragile.with_options(**of_task).map(["a", "b"], **of_map))
    assert workflows.run(node, workflow_id="w", on_change="refuse") == [["a", "b"]]
    assert take() == ["b"]


def test_other_options_of_a_map_hold_for_the_items_that_are_left(workflows):
    broken_run(workflows)
    retried = fragile.with_options(retry=workflow.Retry(attempts=3, wait_initial=0))
    node = joined(retried.map(["a", "b"]))
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(node, workflow_id="w", on_change="refuse")
    assert take() == ["b", "b", "b"]


def test_a_failure_that_is_allowed_later_is_no_change(workflows):
    broken_run(workflows)
    node = joined(fragile.map(["a", "b"], max_failed=1))
    assert workflows.run(node, workflow_id="w", on_change="refuse") == [["a"]]


def test_other_options_run_nothing_again_that_takes_the_map(workflows):
    assert stopped(workflows, same(same.map([1, 2]).reduce(largest)), "same") == 2
    take()
    node = same(same.map([1, 2], max_concurrency=1).reduce(largest.with_options(memory=10_000)))
    plan = workflows.plan(stop(node), "w", on_change="refuse")
    assert plan.mismatches == []
    assert stopped(workflows, node, "same") == 2
    assert take() == []


@workflow.task
def largest(values: list[int]) -> int:
    return max(values)


@pytest.mark.parametrize(
    ("items", "factor"), [([1, 3], 1), ([1, 2], 10)], ids=["items", "code of a function"]
)
def test_other_options_hide_no_change(workflows, items, factor):
    def of_factor(factor: int) -> Any:
        module = ModuleType("a_dag_file")
        source = f"def load(value): return value * {factor}"
        exec(compile(source, "a_dag_file.py", "exec"), vars(module))
        return workflow.task(module.load)

    stopped(workflows, joined(of_factor(1).map([1, 2])), "joined")
    node = joined(of_factor(factor).map(items, max_concurrency=1))
    with pytest.raises(WorkflowChangedError, match=r"load\.map: "):
        workflows.run(stop(node), workflow_id="w", on_change="refuse")


def test_all_that_takes_a_map_with_other_options_takes_items_that_had_failed(workflows):
    """Also where what takes the map has the options that it had."""

    def node(max_failed: int) -> Any:
        values = fragile.map(["a", "b"], max_failed=max_failed)
        # One whose nested items have failed makes the last task look at all that it takes.
        nested = inside.map(["c"])
        return joined(values, same.map(values), nested)

    broken.update(["b", "d"])
    assert workflows.run(node(1), workflow_id="w") == [["a"], ["a"], [["c"]]]
    broken.clear()
    assert workflows.run(node(2), workflow_id="w") == [["a", "b"], ["a", "b"], [["c", "d"]]]


@workflow.task
def inside(value: str) -> Any:
    return listed(fragile.map([value, "d"], max_failed=1))


@workflow.task
def listed(values: Any) -> list[Any]:
    return list(values)
