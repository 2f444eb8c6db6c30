"""An argument that can't be stored is told with its task, its name and the remedy."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph


@workflow.task
def pair(first: Any, second: Any) -> Any:
    return first, second


def generator() -> Any:
    return (number for number in [1])


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda value: pair(1, value), "pair"),
        (lambda value: pair.map([1], second=value), "pair.map"),
    ],
    ids=["call", "map"],
)
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (generator, r"a generator, can't be stored: .*Give a list of what it yields\."),
        (threading.Lock, r"a lock, can't be stored: .*open or create the rest in the task\."),
        (lambda: [generator()], r"a list, can't be stored: .*Give a list of what it yields\."),
    ],
    ids=["generator", "lock", "inside"],
)
def test_the_task_and_the_argument_are_named(make, task, value, told):
    with pytest.raises(TypeError, match=f"The argument 'second' of task '{task}', {told}"):
        encode_graph(make(value()))


def test_arguments_without_a_parameter_of_their_own_are_named():
    @workflow.task
    def many(*values: Any, **named: Any) -> Any:
        return values, named

    with pytest.raises(TypeError, match=r"argument 'values\[1\]' of task 'many', a generator"):
        encode_graph(many(1, generator()))
    with pytest.raises(TypeError, match=r"argument 'rows' of task 'many', a generator"):
        encode_graph(many(rows=generator()))


def test_an_error_of_the_author_is_not_changed():
    class Broken:
        def __reduce__(self) -> Any:
            raise TypeError("of the author")

    with pytest.raises(TypeError, match=r"^of the author$"):
        encode_graph(pair(1, Broken()))
