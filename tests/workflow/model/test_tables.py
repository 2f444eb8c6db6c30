"""Arrays and tables count by their values: what is equal is the same argument, however it was made."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_provider_rayworkflow.workflow.model import fingerprints

GRID = np.arange(12.0).reshape(3, 4)
MIXED = np.array([[1, "a"], [None, 2]], dtype=object)
RECORD = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def of(value: object) -> str:
    return fingerprints.of_value(value, replace=lambda value: NotImplemented)[0]


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": [1, 2, 3],
            "b": ["x", "y", None],
            "c": [1.0, 2.0, 3.0],
            "d": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03"]),
            "e": pd.Categorical(["u", "v", "u"]),
            "f": pd.array([1, None, 3], dtype="Int64"),
        }
    )


def built_by_columns() -> pd.DataFrame:
    whole = frame()
    made = pd.DataFrame({"c": [1.0, 2.0, 3.0]})
    made.insert(0, "a", [1, 2, 3])
    for name in ("b", "d", "e", "f"):
        made[name] = whole[name].copy()
    return made[list("abcdef")]


def read() -> pd.DataFrame:
    made = frame()
    assert made["a"].sum() == made.a.to_numpy().sum()
    assert made.loc[0, "b"] == "x"
    assert "c" in repr(made.describe())
    return made


def behind_a_missing_value(value: int) -> pd.Series:
    made = pd.Series([1, value, 3], dtype="Int64")
    made[1] = pd.NA
    return made


def padded(between: int) -> np.ndarray:
    made = np.full(2 * RECORD.itemsize, between, dtype="u1").view(RECORD)
    made["a"], made["b"] = [1, 2], [3.0, 4.0]
    return made


def table(**changes: list) -> pa.Table:
    columns = {"a": [1, None, 3], "b": ["x", "yy", None], "c": [[1], [], None], "d": [True] * 3}
    return pa.table(columns | changes)


EQUAL = {
    "C and F order": (GRID, np.asfortranarray(GRID)),
    "every second column": (GRID, np.repeat(GRID, 2, axis=1)[:, ::2]),
    "backwards twice": (GRID, GRID[::-1].copy()[::-1]),
    "objects in C and F order": (MIXED, np.asfortranarray(MIXED)),
    "empty, in C and F order": (np.zeros((0, 3)), np.zeros((0, 3), order="F")),
    "masked in C and F order": (
        np.ma.array(GRID, mask=GRID > 3),
        np.ma.array(np.asfortranarray(GRID), mask=np.asfortranarray(GRID > 3)),
    ),
    "other values behind a mask": (
        np.ma.array([1, 2], mask=[False, True]),
        np.ma.array([1, 5], mask=[False, True]),
    ),
    "a kind of array": (GRID.view(np.recarray), np.asfortranarray(GRID).view(np.recarray)),
    "bytes between the fields of records": (padded(0), padded(255)),
    "a frame of columns added one by one": (frame(), built_by_columns()),
    "a frame that was read": (frame(), read()),
    "a frame of two": (frame(), pd.concat([frame()[:1], frame()[1:]])),
    "a part of a frame": (frame(), pd.concat([frame(), frame()])[3:]),
    "an index that counts": (frame(), frame().set_index(pd.Index([0, 1, 2]))),
    "a frame of one array": (
        frame()[["a", "c"]].astype(float),
        pd.DataFrame(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), columns=["a", "c"]),
    ),
    "a series of a frame": (pd.Series([1, 2, 3], name="a"), frame()["a"]),
    "other values behind a missing one": (behind_a_missing_value(7), behind_a_missing_value(8)),
    "levels that are not used": (
        pd.MultiIndex.from_product([[1, 2, 3], ["a"]])[:2],
        pd.MultiIndex.from_tuples([(1, "a"), (2, "a")]),
    ),
    "times with and without a frequency": (
        pd.Series(pd.date_range("2013-01-01", periods=3, tz="UTC").array),
        pd.Series(pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03"], utc=True)),
    ),
    "categories turned twice": (
        pd.Series(["u", "v", "w"]).astype("category"),
        pd.Series(["u", "v", "w"]).astype("category")[::-1][::-1],
    ),
    "intervals of breaks and of their sides": (
        pd.arrays.IntervalArray.from_breaks(np.arange(4.0)),
        pd.arrays.IntervalArray.from_arrays(GRID[0, :3], np.arange(8.0)[2:8:2] / 2),
    ),
    "texts in pieces": (
        pd.Series(["a", "b", None], dtype="string[pyarrow]"),
        pd.concat([pd.Series([x], dtype="string[pyarrow]") for x in ("a", "b", None)]).reset_index(
            drop=True
        ),
    ),
    "texts that are one object, and texts that are not": (
        pd.Series(["ab"] * 2, dtype="string[python]"),
        pd.Series(["".join("ab"), "".join("ab")], dtype="string[python]"),
    ),
    "a part of an array without missing values": (pa.array([9, 1, 2])[1:], pa.array([1, 2])),
    "a part of an array of texts": (
        pa.array(["zz", "ab", "c"], pa.large_string())[1:],
        pa.array(["ab", "c"], pa.large_string()),
    ),
    "a table in chunks": (table(), pa.concat_tables([table()[:1], table()[1:]])),
    "a part of a table": (table()[1:], table()[1:].take([0, 1])),
    "other places in a dictionary": (
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array(["b", "a", "b", "a"]).dictionary_encode()[1:],
    ),
}

DIFFERENT = {
    "turned": (GRID, GRID.T.copy()),
    "of another shape": (GRID, GRID.reshape(4, 3)),
    "of another type": (GRID, GRID.astype("f4")),
    "no rows, no columns": (np.zeros((0, 3)), np.zeros((3, 0))),
    "masked elsewhere": (
        np.ma.array([1, 2], mask=[False, True]),
        np.ma.array([1, 2], mask=[True, False]),
    ),
    "one value": (frame(), frame().assign(a=[1, 2, 4])),
    "one name": (frame(), frame().rename(columns={"a": "z"})),
    "the order of columns": (frame(), frame()[list("bacdef")]),
    "a missing value": (frame(), frame().assign(b=["x", "y", "z"])),
    "a missing number": (pd.Series([1, None], dtype="Int64"), pd.Series([1, 0], dtype="Int64")),
    "the index": (frame(), frame().set_index(pd.Index([1, 2, 3]))),
    "the name of an index": (pd.Index([1], name="a"), pd.Index([1], name="b")),
    "texts cut at other places": (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
    "null and zero": (pa.array([1, None]), pa.array([1, 0])),
    "a column of a table": (table(), table(d=[True, True, False])),
    "categories": (pd.Series(["a"]).astype("category"), pd.Series(["a"])),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_values_are_the_same_argument_however_they_were_built_or_laid_out(kind: str):
    one, other = EQUAL[kind]
    assert of(one) == of(other) != ""
    assert of({"in": [one]}) == of({"in": [other]})


@pytest.mark.parametrize("kind", DIFFERENT)
def test_a_value_that_differs_is_another_argument(kind: str):
    one, other = DIFFERENT[kind]
    assert "" != of(one) != of(other) != ""


def test_a_value_that_a_property_has_cached_is_no_change():
    class Report:
        def __init__(self, rows: int) -> None:
            self.rows = rows

        @cached_property
        def text(self) -> str:
            return "r" * self.rows

    fresh, used = Report(2), Report(2)
    assert used.text == "rr"
    assert of(fresh) == of(used) != ""
    used.rows = 3
    assert of(fresh) != of(used)


def test_an_array_in_columns_is_never_laid_out_anew_as_a_whole(monkeypatch):
    pieces = []
    original = np.ascontiguousarray
    monkeypatch.setattr(np, "ascontiguousarray", lambda a: pieces.append(a.nbytes) or original(a))
    rows = np.asfortranarray(np.arange(6_000_000.0).reshape(-1, 2))
    assert of(rows) == of(original(rows))
    assert sum(pieces) == rows.nbytes
    assert max(pieces) <= 16 * 1024 * 1024
