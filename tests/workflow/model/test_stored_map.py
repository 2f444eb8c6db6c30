"""The stored form of a map's result: what refers to what, read without unpickling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.model.records import (
    Blob,
    Encoding,
    Form,
    Result,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.stored_map import (
    NOT_RUN,
    Stamp,
    StoredMap,
    failed_result,
)

FAILED = failed_result(
    TaskFailure(task_id="f[1]", type="ValueError", message="no rows", traceback="")
)
BLOBS = st.builds(Blob, key=st.text(), size=st.integers(0, 2**40), sum=st.text())
ENCODINGS = st.sampled_from([Encoding.PICKLE, Encoding.MAP])
RESULTS = st.one_of(
    st.builds(
        lambda form, content: Result(form, Encoding.PICKLE, inline=content),
        st.sampled_from(Form),
        st.binary(max_size=50),
    ),
    st.builds(lambda encoding, blob: Result(encoding=encoding, blob=blob), ENCODINGS, BLOBS),
    st.sampled_from([FAILED, NOT_RUN]),
)
KEYS = st.none() | st.booleans() | st.integers() | st.text()


@given(st.lists(st.tuples(KEYS, RESULTS)))
def test_a_map_comes_back_as_it_was(items: list[tuple[object, Result]]):
    stored = StoredMap.of_items([key for key, _ in items], [result for _, result in items])
    assert StoredMap.from_bytes(stored.to_bytes()).entries == stored.entries


def test_a_failed_item_has_the_text_of_its_failure_and_no_result():
    stored = StoredMap.of_items(["a", "b"], [FAILED, Result(inline=b"1")])
    assert [(one.key, one.failure, one.result is None) for one in stored.entries] == [
        ("a", "ValueError: no rows", True),
        ("b", "", False),
    ]
    assert stored.stamp[1:] == (1, 1)


def blob_at(key: str) -> Result:
    return Result(blob=Blob(key=key, size=10, sum="same"))


def test_the_same_values_at_other_places_are_the_same_content():
    here, there = (StoredMap.of_items([0], [blob_at(key)]) for key in ("here", "there"))
    assert here.stamp == there.stamp
    inline = [Result(encoding=Encoding.MAP, inline=one.to_bytes()) for one in (here, there)]
    assert inline[0].inline != inline[1].inline
    assert inline[0].identity == inline[1].identity != ""
    sums = Blob(key="a", size=1, sum=str(here.stamp))
    assert Result(encoding=Encoding.MAP, blob=sums).identity == inline[0].identity


@pytest.mark.parametrize(
    ("keys", "results"),
    [([1], [blob_at("a")]), ([0], [Result(inline=b"2")]), ([0], [FAILED]), ([], [])],
    ids=["key", "value", "failed", "none"],
)
def test_other_keys_or_values_are_another_content(keys: list[int], results: list[Result]):
    first = StoredMap.of_items([0], [blob_at("a")])
    assert StoredMap.of_items(keys, results).stamp.content != first.stamp.content


def test_a_map_in_pieces_counts_what_its_pieces_have():
    piece = StoredMap.of_items(["a", "b"], [FAILED, Result(inline=b"1")])
    pieces = [
        Result(encoding=Encoding.MAP, inline=piece.to_bytes()),
        Result(encoding=Encoding.MAP, blob=Blob(key="k", size=5, sum=str(piece.stamp))),
    ]
    whole = StoredMap.of_pieces(pieces)
    assert whole.stamp[1:] == (2, 2)
    read = StoredMap.from_bytes(whole.to_bytes())
    assert read.has_pieces
    assert [entry.stamp for entry in read.entries] == [piece.stamp, piece.stamp]


def test_what_is_in_memory_only_can_not_be_gathered():
    stored = StoredMap.of_items(["a"], [Result(ref=object())])
    with pytest.raises(TypeError, match=r"'a' has no checkpoint.*checkpoint=False away"):
        stored.to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc 1 0\n",
        b"abc 1 0\n{}\n",
        b'abc 1 0\n{"pieces":false,"entries":[[1]]}\n',
        b'abc 1 0\n{"pieces":false,"entries":[["a","value","json",5]]}\n12',
        b'abc 1 0\n{"pieces":false,"entries":[["a","value","other",0]]}\n',
        b'abc 1 0\n{"pieces":false,"entries":[["a","value","json",[1,2,3]]]}\n',
    ],
    ids=["nothing", "no JSON", "no entries", "short row", "cut off", "encoding", "blob"],
)
def test_what_is_no_stored_map_is_damage(data: bytes):
    with pytest.raises(CorruptedDataError):
        StoredMap.from_bytes(data)


def test_a_stamp_that_is_none_is_damage():
    with pytest.raises(CorruptedDataError):
        Stamp.of(Result(encoding=Encoding.MAP, inline=b"{}"))
