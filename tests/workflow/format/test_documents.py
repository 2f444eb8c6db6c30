"""The form of what is stored: it comes back as it was, or it is refused by name."""

import json
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, DataLoadError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_frame,
    dump_line,
    load_frames,
    load_line,
)

KEY = "v1/workflows/w/00000001-00000000.journal"
BODY = {
    "text": 'é \u2028 "quoted"',
    "numbers": [0, -1, 2**70, 1.5, -0.0, 1e300, 5e-324],
    "nothing": None,
    "flags": [True, False],
    "nested": {"b": [], "a": {}},
}
FRAMES = [
    ({"task": "a", "times": [1.5, 2.5]}, b"\x00\x01payload\n"),
    ({}, b""),
    ({"é": 1}, b"\n" * 40),
]
LINE = dump_line("journal", BODY)
DOCUMENT = LINE + b"".join(
    bytes(part) for header, payload in FRAMES for part in dump_frame(header, [payload])
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20),
    lambda children: (
        st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=5), children, max_size=5)
    ),
    max_leaves=20,
)
BODIES = st.dictionaries(st.text(max_size=5), JSON, max_size=5)


def exact(value: object) -> str:
    """Tells apart what ``==`` does not: 1 and True, 0.0 and -0.0."""
    return json.dumps(value, sort_keys=True)


def load(data: bytes) -> tuple[dict, list[tuple[dict, bytes]]]:
    body, frames = load_frames(KEY, "journal", data)
    return body, [(header, bytes(payload)) for header, payload in frames]


# ---- what was written comes back


def test_a_line_is_json_that_anything_can_read():
    assert dump_line("status", {"b": 1, "a": "é"}) == (
        b'{"body":{"a":"\\u00e9","b":1},"kind":"status","sum":"85776df5","v":1}\n'
    )


def test_a_frame_is_a_header_and_bytes_that_are_not_copied():
    payload = bytearray(b"0123456789")
    view = memoryview(payload)
    head, *parts, end = dump_frame({"task": "t"}, [view, b"abc"])
    checksum = zlib.crc32(b'{"task":"t"}0123456789abc')
    assert head == b'%08x 12 13\n{"task":"t"}' % checksum
    assert parts[0] is view
    assert parts[1] == b"abc"
    assert end == b"\n"


@given(BODIES)
def test_a_line_comes_back_as_it_was(body: dict):
    assert exact(load_line(KEY, "status", dump_line("status", body))) == exact(body)


@given(
    BODIES, st.lists(st.tuples(BODIES, st.lists(st.binary(max_size=20), max_size=2)), max_size=3)
)
def test_frames_come_back_as_they_were(body: dict, frames: list[tuple[dict, list[bytes]]]):
    data = dump_line("journal", body)
    for header, payload in frames:
        data += b"".join(bytes(part) for part in dump_frame(header, payload))
    loaded, found = load(data)
    assert exact(loaded) == exact(body)
    assert [(exact(h), p) for h, p in found] == [(exact(h), b"".join(p)) for h, p in frames]


def test_payloads_are_views_of_what_was_read():
    _, frames = load_frames(KEY, "journal", DOCUMENT)
    assert [payload.obj is DOCUMENT for _, payload in frames] == [True, True, True]


# ---- what is damaged is refused by name


def test_a_line_that_is_cut_off_anywhere_is_refused_by_name():
    for length in range(len(LINE)):
        with pytest.raises(CorruptedDataError, match=KEY) as raised:
            load_line(KEY, "journal", LINE[:length])
        assert raised.value.key == KEY


def test_a_document_that_is_cut_off_gives_the_frames_that_are_whole_and_then_its_name():
    ends = [len(LINE) + sum(FRAME_SIZES[:count]) for count in range(len(FRAMES) + 1)]
    for length in range(len(LINE), len(DOCUMENT)):
        found, error = load_what_is_whole(DOCUMENT[:length])
        assert found == FRAMES[: sum(end <= length for end in ends) - 1]
        # Between two frames, only what the line says about them can tell that some are missing.
        assert (error is None) == (length in ends)
        assert error is None or error.key == KEY


FRAME_SIZES = [
    sum(memoryview(part).nbytes for part in dump_frame(header, [payload]))
    for header, payload in FRAMES
]


def load_what_is_whole(data: bytes) -> tuple[list[tuple[dict, bytes]], CorruptedDataError | None]:
    _, frames = load_frames(KEY, "journal", data)
    found = []
    try:
        for header, payload in frames:
            found.append((header, bytes(payload)))
    except CorruptedDataError as exc:
        return found, exc
    return found, None


@pytest.mark.parametrize("change", [0x01, 0x10, 0x20, 0x80, 0xFF])
def test_a_changed_byte_anywhere_is_refused_by_name_or_changes_nothing(change: int):
    harmless = []
    for position in range(len(DOCUMENT)):
        data = bytearray(DOCUMENT)
        data[position] ^= change
        try:
            found = load(bytes(data))
        except DataLoadError as exc:
            assert exc.key == KEY  # noqa: PT017
            continue
        assert exact(found[0]) == exact(BODY)
        assert found[1] == FRAMES
        harmless.append(position)
    # Only in the line: the case of an escape's digit or an exponent, the number of the version.
    assert all(position < len(LINE) for position in harmless)
    assert len(harmless) < 12


@given(st.integers(0, len(DOCUMENT) - 1), st.integers(0, 255), st.integers(0, len(DOCUMENT) - 1))
def test_two_changes_at_once_are_refused_or_change_nothing(position: int, byte: int, other: int):
    data = bytearray(DOCUMENT)
    data[position] = byte
    data[other] ^= 0x08
    try:
        found = load(bytes(data))
    except DataLoadError as exc:
        assert exc.key == KEY  # noqa: PT017
    else:
        assert exact(found[0]) == exact(BODY)
        assert found[1] == FRAMES


@given(st.binary(max_size=300))
@example(b"")
@example(b"\n")
@example(b"{}\n")
@example(b"[]\n")
@example(b"null\n")
@example(b"\xff\xfe{\x00}\x00\n")
@example(b"[" * 50_000 + b"\n")
@example(b'{"body":' * 900 + b"\n")
@example(b'{"body":[],"kind":"journal","sum":"0","v":1}\n')
@example(b'{"body":{},"kind":"journal","sum":0,"v":1}\n')
@example(b'{"body":{},"kind":"journal","sum":"a0efb3ab","v":"1"}\n')
@example(b'{"body":{"a":' + b"9" * 5_000 + b'},"kind":"journal","sum":"0","v":1}\n')
@example(LINE + b"00000000 0 0\n")
@example(LINE + b"00000000 999999999999 999999999999999\n")
def test_any_other_bytes_are_refused_by_name(data: bytes):
    with pytest.raises(DataLoadError) as raised:
        load(data)
    assert raised.value.key == KEY


def test_a_body_nested_too_deep_is_refused_by_name():
    for depth in [*range(300, 1_010, 10), 5_000]:
        body = '{"a":' * depth + "1" + "}" * depth
        line = f'{{"body":{body},"kind":"journal","sum":"00000000","v":1}}\n'.encode()
        with pytest.raises(CorruptedDataError, match=KEY):
            load(line)


def test_a_document_of_a_newer_version_is_refused_with_the_remedy():
    with pytest.raises(DataLoadError) as raised:
        load_line(KEY, "status", dump_line("status", {}).replace(b'"v":1', b'"v":2'))
    assert not isinstance(raised.value, CorruptedDataError)
    assert str(raised.value) == (
        f"{KEY!r} has the format version 2, and this version of airflow-provider-rayworkflow "
        "reads up to 1. Upgrade the package here."
    )


def test_a_document_of_another_kind_is_refused():
    with pytest.raises(CorruptedDataError, match="of kind 'lease' instead of 'status'"):
        load_line(KEY, "status", dump_line("lease", {}))


def test_a_line_with_something_behind_it_is_refused():
    with pytest.raises(CorruptedDataError, match="something behind its end"):
        load_line(KEY, "status", dump_line("status", {}) + b"\n")
