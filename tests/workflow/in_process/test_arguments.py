"""Functions get the arguments that their author bound, on all ways through a graph."""

from __future__ import annotations

import enum
import gc
from collections.abc import Callable
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.runtime.graphs.inputs import load_call
from airflow_provider_rayworkflow.workflow.scheduling.task_fingerprints import literals_of


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


@ray.remote
def source(number):
    return number


@ray.remote
def user(*args, **kwargs):
    return args, kwargs


def stored(graph: Graph) -> Graph:
    return Graph.from_bytes(graph.to_bytes())


def called_with(*args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Both as :func:`user` gets them, the result of ``source(n)`` being ``<n>``."""
    graph = stored(encode_graph(user.bind(*args, **kwargs)))
    *_, task = graph.tasks
    values = [f"<{load_call(graph.arguments_of(graph.tasks[i]), [])[0][0]}>" for i in task.upstream]
    found, named, retryable = load_call(graph.arguments_of(task), values)
    assert retryable is None
    return found, named


def shown(value: Any) -> list[tuple[type, str]]:
    return [(type(one), repr(one)) for one in value]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = SCALARS | st.binary(max_size=5) | st.lists(SCALARS, max_size=2) | st.tuples(SCALARS)


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.text(max_size=3), VALUES))
def test_any_values_arrive_as_they_were(args: list[Any], kwargs: dict[str, Any]):
    found, named = called_with(*args, **kwargs)
    assert shown(found) == shown(args)
    assert list(named) == list(kwargs)
    assert shown(named.values()) == shown(kwargs.values())


@pytest.mark.parametrize(
    "value",
    [1, 1.0, True, -0.0, float("inf"), 2**2000, "\ud800", "x" * 5_000, Level.LOW, Name("n"), b"b"],
)
def test_values_of_like_kinds_stay_apart(value: Any):
    assert shown(called_with(value, k=value)[0]) == shown([value])
    assert shown(called_with(1, value, k=value)[1].values()) == shown([value])


def test_nodes_stand_among_scalars_where_they_were_bound():
    one, other = source.bind(1), source.bind(2)
    assert called_with(0, one, "a", other, one, x=other, y=None) == (
        [0, "<1>", "a", "<2>", "<1>"],
        {"x": "<2>", "y": None},
    )


def test_an_object_that_two_arguments_share_stays_one():
    shared: list[Any] = []
    shared.append(shared)
    first, second = called_with(shared, shared)[0]
    assert first is second is first[0]


def test_calls_of_one_kind_are_stored_as_their_scalars():
    graph = encode_graph(user.bind(*[source.bind(number) for number in (1, True, 1.0)]))
    assert graph.to_json()["tasks"] == [
        (0, (1,), (), ""),
        (0, (True,), (), ""),
        (0, (1.0,), (), ""),
        (1, (), (0, 1, 2), ""),
    ]
    assert len(graph.blobs) == 2  # the functions


def test_a_long_text_is_stored_once_however_many_take_it():
    text = "x" * 100_000
    graph = encode_graph(user.bind(*[source.bind(text) for _ in range(10)]))
    assert len(graph.to_bytes()) < 2 * len(text)


# ---- fingerprints

PLAIN = SCALARS.filter(lambda value: not isinstance(value, float) or value - value == 0)


@given(
    scalars=st.lists(PLAIN, max_size=3),
    inputs=st.integers(0, 2),
    named=st.integers(0, 3),
    random=st.randoms(use_true_random=False),
)
def test_plain_arguments_have_the_fingerprint_of_pickled_ones(
    scalars: list[Any], inputs: int, named: int, random: Any
):
    """Arguments of a task with ``retry`` are always pickled; giving it that changes no input."""
    given = [*scalars, *[source.bind(position) for position in range(inputs)]]
    random.shuffle(given)
    split = max(0, len(given) - named)
    kwargs = dict(zip("abc", given[split:], strict=False))
    retried = user.options(**workflow.options(retry=workflow.Retry(attempts=2)))
    plain, pickled = (
        encode_graph(function.bind(*given[:split], **kwargs)).tasks[-1]
        for function in (user, retried)
    )
    assert isinstance(pickled.arguments, int)
    assert not isinstance(plain.arguments, int)
    assert literals_of(plain) == literals_of(pickled) != ""


def test_a_fingerprint_in_the_graph_counts_for_arguments_in_a_blob():
    assert literals_of(Task(name="t", function=0, arguments=1, literals="abc")) == "abc"


# ---- the garbage collector


@pytest.mark.parametrize("switch", [gc.enable, gc.disable])
def test_the_garbage_collector_is_left_as_it_was(switch: Callable[[], None]):
    try:
        switch()
        was_on = gc.isenabled()
        encode_graph(source.bind(1))
        assert gc.isenabled() is was_on
        with pytest.raises(TypeError, match="can't be called so"):
            encode_graph(source.bind(source.bind()))
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
