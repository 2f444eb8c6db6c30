"""One line of what a task prints or logs: cleaned and bounded where it is made, checked where it is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from airflow_provider_rayworkflow.workflow.format.documents import MAX_TIME
from airflow_provider_rayworkflow.workflow.format.shortening import shorten
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped, shown_text

Json = dict[str, Any]

#: What ``logging`` calls its levels; other levels count as the one below.
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

#: How much is kept of one line, in bytes of UTF-8: of a longer one its beginning and its end.
MAX_LINE_BYTES = 16 * 1024

_LEVELS: tuple[Level, ...] = get_args(Level)
_STEP = logging.ERROR - logging.WARNING


class LogLine(NamedTuple):
    """What a task printed or logged at one time.

    :ivar at: when, in seconds since the epoch, by the worker's clock.
    :ivar task_id: of the task that ran; ``""`` for what concerns the whole workflow.
    :ivar attempt: of the task, from 1 in each epoch; 0 for none.
    :ivar text: one line, several for a message or a traceback that has them. No terminal obeys
        anything in it.
    """

    at: float
    level: Level
    task_id: str
    attempt: int
    text: str

    @property
    def size(self) -> int:
        """About how many bytes it takes in a piece of the log: in JSON, one character takes up to twelve."""
        return len(json.dumps(self.text)) + len(json.dumps(self.task_id)) + _OTHER_BYTES

    def to_json(self) -> Json:
        return self._asdict()


_OTHER_BYTES = 86

_FIELDS = frozenset(LogLine._fields)


class TaskLines(NamedTuple):
    """Lines of one attempt on their way from its worker to the manager.

    :ivar sender: names what sends them, where it sends several times: an attempt that was interrupted
        runs again under its number. ``""``: these are all.
    :ivar first: how many lines of the sender come before these. The manager leaves out what it has
        had before: a worker sends again what may have been lost.
    """

    workflow_id: str
    epoch: int
    lines: Sequence[LogLine]
    sender: str = ""
    first: int = 0


def level_of(number: int) -> Level:
    """The level of a number of ``logging``: the nearest one that is not above it."""
    return _LEVELS[min(max(number // _STEP, 1), len(_LEVELS)) - 1]


def fold(text: str) -> str:
    """What a terminal shows last of one line: what is behind the last carriage return, if anything.

    A progress bar writes itself over and over so.
    """
    if "\r" not in text:
        return text
    return next((part for part in reversed(text.split("\r")) if part.strip()), "")


def clean(text: str) -> str:
    """A text as it stands in a log: without colours, without what a terminal would obey, bounded."""
    return shown_text(shorten(text, MAX_LINE_BYTES)).rstrip()


def read_line(value: Any) -> LogLine:
    """The line of an object of JSON that anyone may have written.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise ValueError("a line has not the fields of one")
    line = LogLine(**value)
    is_typed = (
        type(line.at) in (int, float)
        and 0 <= line.at <= MAX_TIME
        and line.level in _LEVELS
        and isinstance(line.task_id, str)
        and type(line.attempt) is int
        and line.attempt >= 0
        and isinstance(line.text, str)
    )
    if not is_typed:
        raise ValueError("a field of a line is of the wrong type")
    return line._replace(text=escaped(line.text))
