"""Keys of maps: those that name the items, and those of the items' results in the cache."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

import effects
import numpy
import pytest
import ray
from effects import calls

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.timeout(60)]


@workflow.task
def same(value: Any) -> Any:
    return value


@workflow.task
def listed(values: Any) -> list[Any]:
    return list(values)


@workflow.task
def keys_of(values: Any) -> list[Any]:
    return values.keys


# ---- of the cache


@workflow.task(cache=workflow.Cache(version="1", key=lambda day, connection: day[:10]))
def rows(day: str, connection: Any) -> str:
    effects.note(day[:10])
    return f"rows of {day[:10]}"


@pytest.mark.parametrize(
    "connections",
    [("a", "b"), ({"dsn": 1}, {"dsn": 2}), ("a" * 2_000, "b" * 2_000)],
    ids=["text", "dict", "long text"],
)
def test_a_cache_key_stands_for_items_and_what_they_share(
    workflows: InProcessWorkflows, connections: tuple[Any, Any]
):
    for connection in connections:
        result = workflows.run(listed(rows.map(["1", "2"], connection=connection)))
        assert result == ["rows of 1", "rows of 2"]
    assert sorted(calls) == ["1", "2"]


def test_a_cache_key_is_made_of_items_that_other_tasks_give(workflows: InProcessWorkflows):
    days = [str(number) * 10_000 for number in (1, 2)]  # not copied into the graph
    of_map = rows.map(same.map(days), connection=same("a"))
    assert len(workflows.run(listed(of_map))) == 2
    assert len(workflows.run(listed(rows.map(same(days), connection="b")))) == 2
    assert len(workflows.run(listed(rows.starmap([(same(day), "c") for day in days])))) == 2
    assert sorted(calls) == ["1" * 10, "2" * 10]


def test_a_cache_key_that_fails_names_the_item(workflows: InProcessWorkflows):
    with pytest.raises(WorkflowExecutionError, match=r"rows.map asked for the cache key of item 1"):
        workflows.run(rows.map(["1", 2], connection="a"))


def test_a_reduction_by_a_task_with_a_cache_key_is_refused():
    keyed = listed.with_options(cache=workflow.Cache(key=str))
    with pytest.raises(ValueError, match=r"listed.with_options\(cache=workflow.Cache\(…\)\)"):
        same.map([1]).reduce(keyed)


# ---- of items


@dataclass(frozen=True, slots=True)
class Order:
    number: Any


KEYED = [
    ([same(1), same(2)], lambda value: f"k{value}"),
    ([same(1), same(2)], str),
    ([{"id": same(1)}, {"id": same(2)}], lambda value: f"k{value['id']}"),
    ([Order(same(1)), Order(same(2))], "number"),
    ([same({"id": "a"}), {"id": "b"}], "id"),
]


@pytest.mark.parametrize(
    ("items", "key"), KEYED, ids=["computed", "text", "in a dict", "in an object", "field"]
)
def test_keys_of_items_with_nodes_are_made_when_these_have_run(
    workflows: InProcessWorkflows, items: Any, key: Any
):
    result = workflows.run(keys_of(same.map(items, key=key)))
    assert [str(found)[-1] for found in result] in (["1", "2"], ["a", "b"])
    with pytest.raises(WorkflowExecutionError, match="two items with the key"):
        workflows.run(same.map([items[0], items[0]], key=key))


def test_keys_of_items_of_ray_tasks_are_made_when_these_have_run(workflows: InProcessWorkflows):
    number = ray.remote(same.fn)
    items = [number.bind(1), {"id": number.bind(2)}]
    result = workflows.run(keys_of(same.map(items, key=str)))
    assert result == ["1", "{'id': 2}"]


class Color(enum.Enum):
    RED = "r"


@pytest.mark.parametrize(
    ("key", "stored", "name"),
    [
        ("a", "a", "a"),
        (numpy.int64(5), 5, "5"),
        (numpy.float64(1.5), 1.5, "1.5"),
        (numpy.bool_(True), "True", "True"),
        (None, None, "None"),
        (date(2026, 1, 2), "2026-01-02", "2026-01-02"),
        (Color.RED, "Color.RED", "Color.RED"),
        (("a", 1), "('a', 1)", "('a', 1)"),
    ],
    ids=["text", "int", "float", "bool", "None", "date", "enum", "tuple"],
)
def test_keys_are_numbers_or_texts_in_the_result(
    workflows: InProcessWorkflows, key: Any, stored: Any, name: str
):
    result = workflows.run(same.map({key: 7}), workflow_id="w")
    assert result.keys == [stored]
    assert type(result.keys[0]) is type(stored)
    assert workflows.get_output("w", task_id=f"same[{name}]") == 7


class Plain:
    pass


class Zone(tzinfo):
    """A time in it has no text of its own where it stands in a tuple."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)


@pytest.mark.parametrize(
    "key",
    [Plain(), Plain, frozenset("ab"), (1, Plain()), len, (datetime(2026, 1, 2, tzinfo=Zone()),)],
    ids=["object", "class", "set", "in a tuple", "function", "a time of such a zone"],
)
def test_keys_without_a_text_that_stays_are_refused(workflows: InProcessWorkflows, key: Any):
    told = r"has an item with the key .*give key= a function"
    with pytest.raises(TypeError, match=told):
        same.map({key: 1})
    with pytest.raises(TypeError, match=told):
        same.map([1], key=lambda _: key)
    with pytest.raises(TypeError, match=told):
        workflow.gather({key: same(1)})
    with pytest.raises(WorkflowExecutionError, match=told):
        workflows.run(same.map(same([0]), key=lambda _: key))
