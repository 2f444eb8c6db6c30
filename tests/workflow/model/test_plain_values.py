"""Values in containers of any size, shape and sharing count by their content, as if read one by one."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model import fingerprints


def of(value: Any) -> str:
    found, _ = fingerprints.of_value(value, replace=lambda _: NotImplemented)
    assert found
    return found


class Text(str):
    __slots__ = ()


class Odd:
    def __init__(self, part: Any) -> None:
        self.part = part


def content(value: Any) -> Any:
    """What a value counts by, said in the simplest way."""
    kind = type(value).__name__
    match value:
        case list() | tuple():
            return kind, [content(part) for part in value]
        case dict():
            return kind, sorted((content(key), content(part)) for key, part in value.items())
        case set() | frozenset():
            return kind, sorted(repr(content(part)) for part in value)
        case Odd():
            return kind, content(value.part)
    return kind, f"{value:x}" if type(value) is int else repr(value)


def made_anew(value: Any) -> Any:
    """An equal value of which no part stands twice, made in another order."""
    match value:
        case list() | tuple():
            return type(value)(made_anew(part) for part in value)
        case dict():
            return {made_anew(key): made_anew(part) for key, part in reversed(value.items())}
        case frozenset():
            return frozenset(made_anew(part) for part in sorted(value, key=repr, reverse=True))
        case Odd():
            return Odd(made_anew(value.part))
        case float():
            return -value if value != value else float(repr(value))
    return copy.deepcopy(value)


def with_one_changed(value: Any, choose: random.Random) -> Any:
    """A value that differs in one leaf, or in the length of an empty container."""
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not places:
        return {"new": 0} if isinstance(value, dict) else type(value)([0])
    place = choose.choice(places)
    old = value[place]
    new = (
        with_one_changed(old, choose) if type(old) in (list, tuple, dict) else ("was", content(old))
    )
    if isinstance(value, dict):
        return value | {place: new}
    return type(value)(new if at == place else part for at, part in enumerate(value))


LEAVES = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 2**70, 16**3000),
        *(0.0, -0.0, 1.0, 0.5, float("inf"), float("-inf"), float("nan")),
        *("", "a", "1", "\x00", "ä", "\ud800", "a" * 200, b"", b"a", b"\xff", Text("a")),
        *(
            1j,
            Ellipsis,
            *(date(2026, 1, 1), datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
            *(datetime(2026, 1, 1, fold=1), time(1), timedelta(1), Fraction(1, 3), Fraction(1)),
            *(Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("NaN")),
            Odd([1]),
            frozenset({"a", "b", "c"}),
            frozenset({1, "a"}),
        ),
    ]
)
KEYS = st.sampled_from(["a", "b", "ä", "\ud800", 1, 2, -1, b"a", 1.5, (1, "a"), None, True])
PAIRS = st.sampled_from([(1, "a"), (1, "b"), (2, "a"), (True, "a"), ("a", 1), (1, "a", 1), ()])
TEXTS = st.sampled_from(["a", "b", "c", "d"])
LENGTHS = st.sampled_from([0, 1, 2, 31, 32, 33, 127, 128, 129, 300, 1_001])


def containers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=4).map(tuple),
        st.dictionaries(KEYS, parts, max_size=4),
        st.dictionaries(TEXTS, parts, max_size=4),
        st.dictionaries(PAIRS, parts, max_size=3),
        st.builds(lambda part, times: [part] * times, parts, LENGTHS),
        st.builds(lambda part, times: {f"{n}": part for n in range(times)}, parts, LENGTHS),
        st.builds(lambda part: Odd(part), parts),
    )


VALUES = st.recursive(LEAVES, containers, max_leaves=12)
# Repeated parts of repeated parts may be very many: they are looked at one by one here.
SMALL = VALUES.filter(lambda value: _count(value) < 5_000)


def _count(value: Any, known: dict[int, int] | None = None) -> int:
    known = {} if known is None else known
    if id(value) not in known:
        parts: Any = ()
        match value:
            case list() | tuple():
                parts = value
            case dict():
                parts = value.values()
            case Odd():
                parts = (value.part,)
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


@settings(max_examples=200)
@given(SMALL)
def test_an_equal_value_made_in_another_way_has_the_same_fingerprint(value: Any):
    other = made_anew(value)
    assert content(other) == content(value)
    assert of(other) == of(value)


@settings(max_examples=200)
@given(SMALL, SMALL)
def test_two_values_have_one_fingerprint_if_and_only_if_their_contents_are_equal(
    one: Any, other: Any
):
    assert (of(one) == of(other)) == (content(one) == content(other))


@settings(max_examples=200)
@given(
    SMALL.filter(lambda value: type(value) in (list, tuple, dict)),
    st.randoms(use_true_random=False),
)
def test_a_change_of_any_part_is_a_change(value: Any, choose: random.Random):
    other = with_one_changed(value, choose)
    assert of(other) != of(value)


RECORDS: list[Callable[[int], Any]] = [
    float,
    int,
    str,
    lambda n: n % 2 == 0,
    lambda n: None,
    lambda n: {"id": n, "name": f"n{n}", "score": n / 7},
    lambda n: {"id": n} if n % 3 else {"id": n, "tags": ["a", str(n)]},
    lambda n: [n, float(n), str(n)],
    lambda n: {"pos": (n, {"x": [n, n + 1]})},
    lambda n: [n / 7] * 150,
    lambda n: {str(n): n},
    lambda n: {n: {str(n): n}},
    lambda n: {(n, "a"): n, (n, "b"): [n]},
    lambda n: date.fromordinal(n + 1),
    lambda n: {"at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(n), "price": Decimal(n) / 7},
]


@pytest.mark.parametrize("make", RECORDS, ids=range(len(RECORDS)))
def test_long_lists_count_by_content_whatever_they_hold(make: Callable[[int], Any]):
    values = [make(n) for n in range(10_500)]
    same = of(values)
    assert of(made_anew(values)) == same
    assert of(tuple(values)) != same
    assert of(values[:-1]) != same
    assert of([*values[:-1], "another"]) != same
    assert of(["another", *values[1:]]) != same


NUMBERS: list[list[Any]] = [
    *([0.5], [1, 300, 100_000], [-1, 2**31, 2**63, 2**70], [None], [True, False]),
    *([0.0, -0.0], [float("inf"), -float("inf")], [1, 1.0, None, True], [1e308, 0.1, -1e308]),
]


@pytest.mark.parametrize("odd", [-0.0, 0, 1, False, None, float("nan"), 2**64, "0", (), [], b""])
@pytest.mark.parametrize("numbers", NUMBERS, ids=range(len(NUMBERS)))
@pytest.mark.parametrize("size", [500, 1_000, 1_001, 2_500, 10_001])
def test_an_odd_value_among_many_numbers_counts(size: int, numbers: list[Any], odd: Any):
    values = (numbers * size)[:size]
    changed = [[*values[:at], odd, *values[at:]] for at in (0, 499, size)]
    assert len(set(map(of, changed))) == len({str(content(value)) for value in changed})
    assert of(values) not in set(map(of, changed))
    assert of(values) == of(made_anew(values)) != of(tuple(values))


def test_nans_are_all_the_same():
    nan, other = struct.unpack(">2d", bytes.fromhex("7ff8000000000001fff8000000000000"))
    for value, size in ((0.5, 1_500), (1, 1_500), (None, 1_500), (0.5, 30_500), (1e308, 30_500)):
        many = [value] * size
        assert of([*many, nan]) == of([*many, other]) == of([*many, -nan])
        assert of([nan, *many]) == of([other, *many]) != of([*many, nan])
        mixed = [*many, 1, True, 300, 2**70, *many]
        assert of([*mixed, nan, *many]) == of([*mixed, other, *many]) != of([*mixed, *many, nan])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 10_000, 10_001])
def test_the_order_of_large_sets_and_dicts_does_not_count(size: int):
    names = [f"n{n}" for n in range(size)]
    assert of(dict.fromkeys(names, 1)) == of(dict.fromkeys(reversed(names), 1))
    pairs = [(n % 10, name) for n, name in enumerate(names)]
    assert of(dict.fromkeys(pairs, 1)) == of(dict.fromkeys(reversed(pairs), 1))
    assert of(set(pairs)) == of(set(reversed(pairs)))
    assert of(set(names)) == of(set(reversed(names)))
    assert of(set(names)) != of({*names, "another"})
    assert of(set(range(size))) == of(set(reversed(range(size))))
    assert of(frozenset(names)) != of(set(names))


def test_lists_are_not_told_apart_by_where_their_parts_begin_and_end_alone():
    assert of([["a", "b"], ["c"]]) != of([["a"], ["b", "c"]])
    assert of(["ab", "c"]) != of(["a", "bc"])
    assert of([[], [1]]) != of([[1], []])
    assert of([{"a": 1}, {}]) != of([{}, {"a": 1}])
    assert of([[1], (1,)]) != of([(1,), [1]])


def _tower(height: int, *, is_shared: bool) -> Any:
    value: Any = ["ground"]
    for _ in range(height):
        value = [value, value] if is_shared else [value, copy.deepcopy(value)]
    return value


def test_a_part_that_is_shared_counts_as_two_equal_ones():
    assert of(_tower(14, is_shared=True)) == of(_tower(14, is_shared=False))


def test_a_value_of_very_many_shared_parts_is_read_once_for_each_part():
    assert of(_tower(200, is_shared=True)) != of(_tower(201, is_shared=True))
    large = ["x" * 1_000] * 1_000
    assert of([large] * 10_000) != of([large] * 10_001)


def test_what_refers_to_itself_has_a_fingerprint():
    def cyclic(last: Any) -> Any:
        value: list[Any] = [1]
        value.extend([value, {"a": [value]}, last])
        return value

    assert of(cyclic(1)) == of(cyclic(1))
    assert of(cyclic(1)) != of(cyclic(2))


@pytest.mark.parametrize("depth", [10, 49, 50, 51, 100, 300])
def test_a_deeply_nested_value_has_a_fingerprint(depth: int):
    def nested(inside: Any) -> Any:
        for _ in range(depth):
            inside = [inside]
        return inside

    assert of(nested(1)) == of(nested(1))
    assert of(nested(1)) != of(nested(2))
    assert of(nested(1)) != of([nested(1)])
