"""How values look on the pages."""

import json

import pytest

from airflow_provider_rayworkflow.plugin.web import formats


def test_every_state_has_words():
    from airflow_provider_rayworkflow.plugin.tasks import STATES

    assert tuple(formats.STATE_TITLES) == STATES


def nested(depth: int, value: object) -> object:
    for _ in range(depth):
        value = [value]
    return value


def test_json_has_a_line_for_each_value():
    assert formats.pretty_json({"a": [1, {"b": "é"}]}) == (
        '{\n  "a": [\n    1,\n    {\n      "b": "é"\n    }\n  ]\n}'
    )


@pytest.mark.parametrize("depth", [20, 450, 900, 5_000])
def test_json_that_is_nested_deep_is_no_larger_for_it(depth: int):
    """Each line would begin with twice as many blanks as it is deep."""
    shown = formats.pretty_json(nested(depth, ["x"] * 5_000))
    assert len(shown) < 40_000


def test_json_that_is_not_deep_and_large_is_cut():
    assert len(formats.pretty_json([0] * 500_000)) < 600_000


def test_numbers_that_are_none_are_shown():
    assert json.loads(formats.pretty_json([1])) == [1]
    assert formats.pretty_json([float("nan"), float("inf")]) == "[\n  NaN,\n  Infinity\n]"
