"""What a map can't call is refused where it is written."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError

pytestmark = pytest.mark.timeout(60)


@workflow.task
def same(value: Any) -> Any:
    return value


def with_parameter(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(f"def embed(x, {name}=1): return x", scope)
    return workflow.task(scope["embed"])


@pytest.mark.parametrize("name", ["items", "key", "max_concurrency", "max_failed", "batch_size"])
def test_a_parameter_that_the_map_would_take_for_its_own_is_refused(name):
    told = rf"map has a {name}= of its own, .*Rename the parameter, or map a function that calls"
    with pytest.raises(TypeError, match=told):
        with_parameter(name).map(["a"])
    with pytest.raises(TypeError, match=told.replace("map", "starmap", 1)):
        with_parameter(name).starmap([("a",)])


def test_a_parameter_that_the_items_fill_may_have_any_name(workflows):
    @workflow.task
    def entry(key: str, items: int) -> str:
        return f"{key}{items}"

    @workflow.task
    def shown(key: str) -> str:
        return key

    assert workflows.run(entry.starmap([("a", 1)])) == ["a1"]
    assert workflows.run(shown.map(["a"], key=str)) == ["a"]


def test_a_parameter_may_be_called_self(workflows):
    @workflow.task
    def embed(x: int, self: int) -> int:
        return x + self

    assert workflows.run(embed.map([1], self=2)) == [3]
    assert workflows.run(embed.starmap([(1,)], self=2)) == [3]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (None, "a list of nodes, or a dict of them, not a NoneType"),
        (same(1), "A single node can be passed as it is"),
        ({same(1)}, "a set has no order"),
    ],
    ids=["None", "a node", "a set"],
)
def test_a_gather_of_what_has_no_order_is_refused(nodes, told):
    with pytest.raises(TypeError, match=told):
        workflow.gather(nodes)


def test_a_gather_has_each_key_once():
    with pytest.raises(ValueError, match=r"gather has two items with the key '\(1, 2\)'"):
        workflow.gather({(1, 2): same(1), "(1, 2)": same(2)})


def test_limits_that_items_name_are_those_of_the_process_that_makes_the_graph(workflows):
    task = same.with_options(limits=["refused later"])
    for call in (lambda: task.map([1]), lambda: same.map([1]).reduce(task)):
        with pytest.raises(ValueError, match="no limit of that name was declared"):
            call()
    declared = workflow.limit("refused later", max_concurrency=1)
    spec = task.map([1])._bound_args[0]
    assert spec.options.workflow["limits"] == (declared,)
    assert workflows.run(task.map([1])) == [1]


def test_such_a_parameter_is_refused_of_items_that_another_task_gives(workflows):
    with pytest.raises(WorkflowExecutionError, match="starmap has a batch_size= of its own"):
        workflows.run(with_parameter("batch_size").starmap(same([("a",)])))


def test_an_item_of_a_starmap_that_does_not_fit_is_refused_by_name(workflows):
    told = r"same.starmap can't call same\(\) with item 1, 2 arguments, and \[\]: too many"
    with pytest.raises(TypeError, match=told):
        same.starmap([(1,), (1, 2)])
    with pytest.raises(TypeError, match=told):
        same.starmap([same((1,)), (same(1), 2)])
    with pytest.raises(TypeError, match=r"\['value'\]: multiple values for argument 'value'"):
        same.starmap([(1,)], value=2)
    with pytest.raises(WorkflowExecutionError, match=told):
        workflows.run(same.starmap(same([(1,), (1, 2)])))
