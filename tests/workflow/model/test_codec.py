"""Values come back as they were: by JSON only where that loses nothing, else by pickle."""

import builtins
import collections
import enum
import json
import math
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.codec import decode, dumps, encode, json_output
from airflow_provider_rayworkflow.workflow.model.records import Encoding, JsonOutput


class Color(enum.StrEnum):
    RED = "red"


class Name(str):
    __slots__ = ()


class Table(dict):
    pass


class Rows(list):
    pass


HUGE = 2**20_000  # more digits than Python turns into text
Point = collections.namedtuple("Point", ["x", "y"])


def round_trip(value):
    encoded = encode(value)
    return encoded.encoding, decode(encoded.encoding, b"".join(encoded.parts))


def same(one, other) -> bool:
    """Equal, of the same types, with the same order and the same sharing."""
    return pickle.dumps(one) == pickle.dumps(other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**63,
        -(2**200),
        0.0,
        -0.0,
        0.1,
        5e-324,
        1.7976931348623157e308,
        "",
        "é \u2028 \0 東京 🚀",
        [],
        {},
        [1, True, 1.0, "1", None],
        {"b": 1, "a": [{"c": []}]},
        {"": {"\0": "é"}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_json_is_stored_as_json(value):
    encoding, found = round_trip(value)
    assert encoding is Encoding.JSON
    assert type(found) is type(value)
    assert same(found, value)


@pytest.mark.parametrize(
    "value",
    [
        (),
        (1, 2),
        [(1,)],
        {"a": (1,)},
        {1: "a"},
        {True: "a"},
        {None: "a"},
        {1: "a", "1": "b"},
        {Name("a"): 1},
        math.nan,
        math.inf,
        -math.inf,
        [math.nan],
        {"a": math.inf},
        HUGE,
        -(HUGE),
        [HUGE],
        "\ud800",
        ["a\udfff"],
        {"\ud800": 1},
        Name("a"),
        Color.RED,
        Table(a=1),
        Rows([1]),
        Point(1, 2),
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        b"bytes",
        bytearray(b"bytes"),
        {1, 2},
        frozenset({1}),
        1j,
        range(3),
        ...,
        np.float64(1.5),
        np.int64(1),
        np.bool_(True),
        list(range(100_000)),
        int,
        ValueError("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_would_change_is_pickled(value):
    encoding, found = round_trip(value)
    assert encoding is Encoding.PICKLE
    assert type(found) is type(value)
    assert same(found, value) or repr(found) == repr(value)


def test_a_list_that_is_twice_in_a_value_stays_one_list():
    row = [0]
    _, (one, other) = round_trip([row, row])
    assert one is other
    _, found = round_trip({"a": {"x": row}, "b": row})
    assert found["a"]["x"] is found["b"]


def test_a_list_in_itself_stays_so():
    value = [1]
    value.append(value)
    _, found = round_trip(value)
    assert found[1] is found


@pytest.mark.parametrize("depth", [10, 50, 100, 150])
@pytest.mark.parametrize("kind", [list, dict])
def test_deep_values_come_back(depth: int, kind: type):
    value = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    assert same(round_trip(value)[1], value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(), max_size=5)
        | st.binary(max_size=5)
        | st.just(Color.RED),
        lambda children: (
            st.lists(children, max_size=3)
            | st.tuples(children, children)
            | st.dictionaries(
                st.text(st.characters(), max_size=3) | st.integers() | st.booleans(),
                children,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_value_comes_back_with_its_types_and_its_order(value):
    _, found = round_trip(value)
    assert shape(found) == shape(value)


def shape(value):
    """A value as what tells apart all that ``==`` does not; floats by their bits."""
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, float):
        return type(value), value.hex()
    return type(value), value


# ---- large buffers


def test_a_numpy_array_is_neither_copied_when_written_nor_when_read():
    array = np.arange(100_000, dtype=np.float64)
    encoded = encode({"a": array})
    assert encoded.encoding is Encoding.PICKLE
    outside = [part for part in encoded.parts if memoryview(part).nbytes == array.nbytes]
    assert len(outside) == 1
    assert np.shares_memory(np.frombuffer(outside[0], dtype=np.float64), array)
    data = b"".join(encoded.parts)
    assert len(data) == encoded.size
    assert encoded.size < array.nbytes + 1_000
    found = decode(encoded.encoding, data)["a"]
    assert np.array_equal(found, array)
    assert np.shares_memory(found, np.frombuffer(data, dtype=np.uint8))


def test_an_arrow_table_is_neither_copied_when_written_nor_when_read():
    table = pa.table({"n": pa.array(range(100_000)), "s": pa.array(["x"] * 100_000)})
    encoded = encode(table)
    addresses = {
        np.frombuffer(part, dtype=np.uint8).ctypes.data
        for part in encoded.parts
        if memoryview(part).nbytes > 10_000
    }
    buffers = [b for column in table.columns for b in column.chunk(0).buffers() if b is not None]
    assert {buffer.address for buffer in buffers if buffer.size > 10_000} <= addresses
    data = b"".join(encoded.parts)
    before = pa.total_allocated_bytes()
    found = decode(encoded.encoding, data)
    assert pa.total_allocated_bytes() == before
    assert found.equals(table)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0)[::2],
        np.arange(12.0).reshape(3, 4)[:, 1],
        np.empty((0, 3)),
        np.array(7),
        np.array(["a", None], dtype=object),
        np.array(["2013-01-01"], dtype="datetime64[D]"),
    ],
    ids=["fortran", "strided", "column", "empty", "scalar", "objects", "dates"],
)
def test_arrays_of_every_layout_come_back(array: np.ndarray):
    _, found = round_trip(array)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_one_array_that_is_twice_in_a_value_is_written_once():
    array = np.zeros(100_000)
    assert encode([array, array]).size < array.nbytes + 1_000


def test_a_function_of_a_test_is_pickled_by_value():
    factor = 3
    _, found = round_trip(lambda x: factor * x)
    assert found(2) == 6


# ---- for readers that must not unpickle


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"a": [1, 2.5, True, "é"]}, {"a": [1, 2.5, True, "é"]}),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Color.RED, "red"),
        ("\ud800", "\ud800"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_output_that_is_json_is_shown(value, expected):
    assert json_output(value) == JsonOutput(value=expected)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"x", "the output of type bytes is not JSON (Object of type bytes is not JSON"),
        (math.nan, "the output of type float is not JSON (Out of range float values are not"),
        ({(1, 2): 3}, "the output of type dict is not JSON (keys must be str, int, float, bool"),
        (np.int64(1), "the output of type int64 is not JSON (Object of type int64 is not JSON"),
        (HUGE, "the output of type int is not JSON (Exceeds the limit"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_output_that_is_not_json_is_shown_as_why(value, problem: str):
    shown = json_output(value)
    assert shown.value is None
    assert shown.problem.startswith(problem)
    assert shown.problem.endswith(
        "; return JSON types from the last task, or store the value and return where it is"
    )


def test_keys_become_strings_as_json_has_no_others():
    assert json_output({2013: {True: "a"}}) == JsonOutput(value={"2013": {"true": "a"}})


def test_an_output_in_itself_is_a_problem():
    value: list = []
    value.append(value)
    assert "Circular reference" in json_output(value).problem


@pytest.mark.parametrize(("length", "is_shown"), [(65_534, True), (65_535, False)])
def test_an_output_of_more_than_64_kib_of_json_is_not_shown(length: int, is_shown: bool):
    text = "x" * length
    shown = json_output(text)
    assert (shown.value == text) is is_shown
    if not is_shown:
        assert shown.problem == (
            "the output has 65537 bytes of JSON, the limit is 65536; store the value and return "
            "where it is"
        )
    assert len(json.dumps(shown.value)) <= 65_536


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({1: "a", "1": "b"}, "'1'"),
        ({"a": [{None: 1, "null": 2}]}, "'null'"),
        ({True: 1, "true": 2}, "'true'"),
        ({1.5: 1, "1.5": 2}, "'1.5'"),
    ],
)
def test_an_output_whose_keys_would_be_one_as_json_is_not_shown(value: object, key: str):
    shown = json_output(value)
    assert shown.value is None
    assert f"several keys would be {key}" in shown.problem


def test_a_function_of_python_is_pickled_by_its_name_though_another_one_stands_in_for_it(
    monkeypatch: pytest.MonkeyPatch,
):
    printing = print  # a default argument, say, from before Ray has replaced it
    monkeypatch.setattr("builtins.print", lambda *_: None)
    assert pickle.loads(dumps({"begin": printing})) == {"begin": builtins.print}
