"""Pieces of logs: written once, read on from a cursor, and left out one by one where they are damaged."""

import json
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage import ByteStore, keys, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.log_pieces import (
    BEGINNING,
    MAX_PIECE_BYTES,
    LogCursor,
    LogPieces,
)

W = "Flights"


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    return MemoryStore() if request.param == "memory" else open_store(str(tmp_path))


def line(text: object, task_id: str = "load") -> LogLine:
    return LogLine(at=1.0, level="INFO", task_id=task_id, attempt=1, text=str(text))


def write(
    store: ByteStore, epoch: int, number: int, *lines: LogLine, pieces: LogPieces | None = None
) -> str:
    put = (pieces or LogPieces(store)).put(W, epoch, number, lines)
    store.put(put.key, put.data)
    return put.key


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def test_a_piece_is_json_lines_that_any_reader_reads():
    store = MemoryStore()
    key = write(store, 1, 1, line("a"), line("é\n\u2028b"))
    assert key == "v1/logs/%46lights/00000001-00000001.jsonl"
    head, *rest = [json.loads(text) for text in store.get(key).splitlines()]
    assert head["kind"] == "log"
    assert [one["text"] for one in rest] == ["a", "é\n\u2028b"]


def test_lines_come_in_the_order_of_epochs_and_numbers(store: ByteStore):
    write(store, 2, 1, line(4))
    write(store, 1, 10, line(3))
    write(store, 1, 2, line(2))
    write(store, 1, 1, line(0), line(1))
    found = LogPieces(store).read(W)
    assert texts(found.lines) == ["0", "1", "2", "3", "4"]
    assert found.is_all


def test_a_cursor_gives_each_line_once(store: ByteStore):
    pieces = LogPieces(store)
    assert pieces.read(W).cursor == BEGINNING
    write(store, 1, 1, line(0), line(1), line(2))
    write(store, 1, 2, line(3))
    seen, cursor = [], BEGINNING
    for _ in range(10):
        found = pieces.read(W, cursor, most_lines=2)
        assert len(found.lines) <= 2
        seen += texts(found.lines)
        cursor = LogCursor.parse(str(found.cursor))
        if found.is_all:
            break
    write(store, 2, 1, line(4))
    assert texts(pieces.read(W, cursor).lines) == ["4"]
    assert seen == ["0", "1", "2", "3"]


def test_a_read_stops_at_a_size_and_goes_on_there(store: ByteStore):
    for number in (1, 2, 3):
        write(store, 1, number, line(number))
    found = LogPieces(store, read_bytes=1).read(W)
    assert (texts(found.lines), found.is_all) == (["1"], False)
    assert texts(LogPieces(store).read(W, found.cursor).lines) == ["2", "3"]


def test_lines_of_one_task_are_found(store: ByteStore):
    write(store, 1, 1, line("a", "load"), line("b", "clean"), line("c", "load"))
    assert texts(LogPieces(store).read(W, task_id="load").lines) == ["a", "c"]
    assert texts(LogPieces(store).read_last(W, 1, task_id="load").lines) == ["c"]


def test_the_last_lines_are_read_from_the_end(store: ByteStore):
    for number in range(1, 6):
        write(store, 1, number, line(f"{number}a"), line(f"{number}b"))
    found = LogPieces(store).read_last(W, 3)
    assert texts(found.lines) == ["4b", "5a", "5b"]
    assert found.is_cut
    assert LogPieces(store).read(W, found.cursor).lines == []
    assert not LogPieces(store).read_last(W, 10).is_cut


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "1.2",
        "1.2.3.4",
        "-1.2.3",
        "1.2.-5",
        "1.2.x",
        "9" * 30,
        "1.2.\u0663",
        None,
        [1, 2, 3],
    ],
)
def test_what_is_no_cursor_is_the_beginning(value: object):
    assert LogCursor.parse(value) == BEGINNING


def damages(data: bytes) -> list[bytes]:
    head = data.split(b"\n", 1)[0]
    return [
        b"",
        data[:-3],
        data + b"{}\n",
        data.replace(b'"text":"b"', b'"text":"x"'),
        head + b"\n",
        data.replace(b'"kind":"log"', b'"kind":"status"'),
        b"\x00" * 100,
        b"x" * (MAX_PIECE_BYTES + 1),
        data.replace(b'"number":2', b'"number":3'),
    ]


@pytest.mark.parametrize("damage", range(9))
def test_a_damaged_piece_is_named_and_the_others_are_read(store: ByteStore, damage: int):
    write(store, 1, 1, line("a"))
    key = write(store, 1, 2, line("b"))
    write(store, 1, 3, line("c"))
    store.put(key, damages(store.get(key))[damage])
    for found in (LogPieces(store).read(W), LogPieces(store).read_last(W, 100)):
        assert texts(found.lines) == ["a", "c"]
        assert len(found.damaged) == 1
        assert key in found.damaged[0]
        assert found.cursor[:2] == (1, 3)


def test_a_piece_of_another_workflow_is_not_shown(store: ByteStore):
    put = LogPieces(store).put("other", 1, 1, [line("secret")])
    store.put(keys.log_key(W, 1, 1), put.data)
    found = LogPieces(store).read(W)
    assert found.lines == []
    assert "other" in found.damaged[0]


def test_foreign_files_are_left_out(store: ByteStore):
    for name in ("x.jsonl", "1-2.txt", "00000001-00000000.jsonl", "a-b.jsonl", "1-2-3.jsonl"):
        store.put(f"{keys.logs_folder(W)}/{name}", b"x")
    assert LogPieces(store).files(W) == []


def test_a_storage_that_does_not_answer_is_no_damage():
    class Down(MemoryStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            raise DataLoadError("down", is_transient=True)

    store = Down()
    write(store, 1, 1, line("a"))
    with pytest.raises(DataLoadError, match="down"):
        LogPieces(store).read(W)


def test_a_piece_that_vanishes_while_it_is_read_costs_nothing():
    class Vanishing(MemoryStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            self.delete([key])
            return super().get(key, start, length)

    store = Vanishing()
    write(store, 1, 1, line("a"))
    found = LogPieces(store).read(W)
    assert (found.lines, found.damaged) == ([], [])


def test_with_a_key_nothing_unsigned_is_believed(store: ByteStore):
    signed = LogPieces(store, signing=SigningKeys.from_text("k" * 32))
    write(store, 1, 1, line("forged"))
    key = write(store, 1, 2, line("a"), pieces=signed)
    write(store, 1, 3, line("b"), pieces=signed)
    found = signed.read(W)
    assert texts(found.lines) == ["a", "b"]
    assert "signed" in found.damaged[0]
    # What is behind the line is signed, too, and the key under which it lies.
    store.put(keys.log_key(W, 1, 3), store.get(key))
    assert texts(signed.read(W).lines) == ["a"]


def test_older_epochs_are_deleted(store: ByteStore):
    for epoch in (1, 2, 3):
        write(store, epoch, 1, line(epoch))
    assert LogPieces(store).make_room(W, 3)[1] == 2
    assert texts(LogPieces(store).read(W).lines) == ["3"]
    LogPieces(store).delete(W)
    assert LogPieces(store).files(W) == []


def test_the_oldest_pieces_of_earlier_epochs_make_room(store: ByteStore):
    for epoch, number in ((1, 1), (1, 2), (2, 1), (3, 1)):
        write(store, epoch, number, line("x" * 1000))
    size = LogPieces(store).files(W)[0].size
    assert LogPieces(store).make_room(W, 3, 10 * size) == (4 * size, 0)
    assert LogPieces(store).make_room(W, 3, 2 * size) == (2 * size, 2)
    assert [(file.epoch, file.number) for file in LogPieces(store).files(W)] == [(2, 1), (3, 1)]
    # What the epoch itself has written stays.
    assert LogPieces(store).make_room(W, 3, 0) == (size, 1)
