"""The form of a line: bounded and harmless where it is made, checked where it is read."""

import json
import logging

import pytest

from airflow_provider_rayworkflow.workflow.model.log_line import (
    MAX_LINE_BYTES,
    LogLine,
    clean,
    fold,
    level_of,
    read_line,
)

LINE = LogLine(at=1.5, level="INFO", task_id="load", attempt=1, text="hello")


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (0, "DEBUG"),
        (10, "DEBUG"),
        (20, "INFO"),
        (25, "INFO"),
        (30, "WARNING"),
        (45, "ERROR"),
        (99, "CRITICAL"),
    ],
)
def test_a_level_between_two_counts_as_the_one_below(number: int, level: str):
    assert level_of(number) == level


def test_levels_have_the_names_of_logging():
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        assert level_of(number) == logging.getLevelName(number)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("plain", "plain"),
        ("10%\r20%\r30%", "30%"),
        ("10%\r20%\r", "20%"),
        ("\r 10%|#  |\r 20%|## |", " 20%|## |"),
        ("windows\r", "windows"),
        ("\r\r", ""),
    ],
)
def test_a_progress_bar_is_folded_to_its_latest_state(printed: str, shown: str):
    assert fold(printed) == shown


def test_what_a_terminal_would_obey_is_removed_or_escaped():
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \u202eabc \ud800") == (
        "red bell\\x07 \\u202eabc \\ud800"
    )


def test_a_long_line_keeps_its_beginning_and_its_end():
    text = clean("begin" + "x" * 10 * MAX_LINE_BYTES + "end")
    assert len(text) < MAX_LINE_BYTES + 200
    assert text.startswith("begin")
    assert text.endswith("end")


@pytest.mark.parametrize("text", ["plain", "漢字", "😀" * 4096, '"\\\n\t', ""])
def test_the_size_of_a_line_is_that_in_a_piece(text: str):
    """A piece of more bytes than its writer counts is left out by readers."""
    line = LINE._replace(text=text, task_id=text[:100], at=1_800_000_000.123456)
    written = len(json.dumps(line.to_json(), separators=(",", ":")))
    assert written <= line.size <= written + 60


def test_a_line_is_read_as_it_was_written():
    assert read_line(LINE.to_json()) == LINE


@pytest.mark.parametrize(
    "changes",
    [
        {"at": "1"},
        {"at": float("nan")},
        {"at": -1},
        {"at": 1e300},
        {"at": True},
        {"level": "LOUD"},
        {"level": ["INFO"]},
        {"task_id": None},
        {"attempt": -1},
        {"attempt": 1.5},
        {"text": 1},
        {"more": 1},
    ],
)
def test_what_is_no_line_is_refused(changes: dict[str, object]):
    with pytest.raises(ValueError, match="line"):
        read_line(LINE.to_json() | changes)


@pytest.mark.parametrize("value", [None, [], "x", {}, 1])
def test_other_json_is_refused(value: object):
    with pytest.raises(ValueError, match="fields"):
        read_line(value)


def test_what_others_wrote_is_escaped_too():
    assert read_line(LINE.to_json() | {"text": "\x1b[2J"}).text == "\\x1b[2J"
