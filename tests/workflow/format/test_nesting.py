"""How deep values are nested, also where recursion would end the process."""

import pytest

from airflow_provider_rayworkflow.workflow.format.nesting import is_nested_deeper


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (1, 0),
        ("[[[]]]", 0),
        ([], 1),
        ([1, 2], 1),
        ({"a": 1}, 1),
        ({"a": (1,), "b": 2}, 2),
        ([1, [2], {"a": [3]}], 3),
    ],
)
def test_a_value_is_nested_as_deep_as_its_innermost_container(value: object, depth: int):
    assert [is_nested_deeper(value, limit) for limit in range(4)] == [
        limit < depth for limit in range(4)
    ]


def test_a_value_may_be_nested_deeper_than_python_can_call():
    value: object = 0
    for _ in range(100_000):
        value = [value]
    assert is_nested_deeper(value, 99_999)
    assert not is_nested_deeper(value, 100_000)
