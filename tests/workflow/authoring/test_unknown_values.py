"""A value that is not known yet: what can't be done with it says so, with the remedy."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

import pytest

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.import_path import load_function

REMEDY = (
    "is not known before the task has run, so .* Do that in a task that takes it as an argument"
)


@workflow.task
def same(*values: Any, **named: Any) -> Any:
    return values, named


node: Any = same(1)


@pytest.mark.parametrize(
    "use",
    [
        lambda: node + 1,
        lambda: operator.add([1], node),
        lambda: "a" + node,
        lambda: 2**node,
        lambda: -node,
        lambda: round(node),
        lambda: node < 2,
        lambda: operator.ge(2, node.rows),
        lambda: int(node),
        lambda: [1, 2][node],
        lambda: math.ceil(node),
        lambda: len(node),
        lambda: 1 in node,
        lambda: operator.setitem(node, 0, 1),
        lambda: os.fspath(node),
        lambda: node(),
        lambda: node.append(1),
        lambda: dict(node),
        lambda: same(**node),
        lambda: same.map([1]).reduce(same).reduce(same),
    ],
)
def test_what_needs_the_value_is_refused_with_the_remedy(use):
    with pytest.raises(TypeError, match=REMEDY):
        use()


def test_the_message_names_the_part():
    with pytest.raises(TypeError, match=r"value of <\.append of <a call of the task 'same'>>"):
        node.append(1)


def test_nodes_are_compared_and_named_as_objects():
    assert node == node.__copy__()
    assert node != same(1)
    assert len({node, same(1)}) == 2
    assert str(node) == repr(node) == "<a call of the task 'same'>"


def test_a_node_is_no_function():
    with pytest.raises(ValueError, match="is a Call and no function"):
        load_function(f"{__name__}:node")
    with pytest.raises(TypeError, match=r"key of same\.map must be a function of an item"):
        same.map([1], key=node)
