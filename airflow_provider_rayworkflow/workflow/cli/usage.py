"""How the commands are called, and what they give back."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id
from airflow_provider_rayworkflow.workflow.storage import DEFAULT_STORAGE, STORAGE_VARIABLE

Json = dict[str, Any]

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command prints.

    :ivar value: for ``--json``.
    :ivar text: for people; None if the command has written it already.
    :ivar problems: what failed of a command that does several things, or is damaged.
    """

    value: Any
    text: str | None
    problems: tuple[str, ...] = ()


class Parser(argparse.ArgumentParser):
    """Tells of wrong usage without what a terminal would obey."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(escaped(message), file)


class Commands:
    """The commands of the parser, to which each adds its own."""

    def __init__(self, parser: Parser) -> None:
        self._parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        self,
        name: str,
        command: Callable[[Any], Answer],
        help: str,
        *,
        has_storage: bool = True,
    ) -> Parser:
        """Add a command with the options that all have; returns its parser.

        :param command: called with the parsed arguments.
        :param has_storage: it is about a storage.
        """
        parser: Parser = self._parsers.add_parser(name, help=help, description=help)
        parser.set_defaults(command=command)
        if has_storage:
            parser.add_argument(
                "--storage",
                metavar="URI",
                type=_storage,
                help=f"where workflows are stored; by default ${STORAGE_VARIABLE} or {DEFAULT_STORAGE}",
            )
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")
        return parser

    def add_of_one(self, name: str, command: Callable[[Any], Answer], help: str) -> Parser:
        """Add a command that takes the id of a workflow; returns its parser."""
        parser = self.add(name, command, help)
        parser.add_argument("workflow_id", metavar="ID", type=workflow_id, help="the workflow's id")
        return parser


def add_status(parser: Parser, choices: Sequence[str], help: str) -> None:
    """Add ``--status``: one or several of these, in upper or lower case."""
    parser.add_argument(
        "--status",
        metavar="STATUS",
        nargs="+",
        action="extend",
        type=str.upper,
        choices=choices,
        help=help,
    )


# ---- types of arguments


def duration_s(text: str) -> float:
    """Seconds, of texts such as ``12h``."""
    if text[-1:] not in _UNITS_S or not text[:-1].isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: give 90s, 15m, 12h or 30d")
    return float(text[:-1]) * _UNITS_S[text[-1]]


def point_in_time(text: str, *, now: float | None = None) -> float:
    """Seconds since the epoch, of ``2026-07-01T12:00+02:00``, or of an age such as ``36h``.

    :param text: a time without a zone is of the zone of this machine.
    :param now: seconds since the epoch; None for the time of now.
    """
    if text[-1:] in _UNITS_S and text[:-1].isdecimal():
        return (time.time() if now is None else now) - duration_s(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: give 2026-07-01, 2026-07-01T12:00+02:00, or an age such as 36h"
        ) from None


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def json_object(text: str) -> Json:
    """Names and values."""
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: give names and values")
    return value


def workflow_id(text: str) -> str:
    """An id that a workflow may have."""
    try:
        return check_workflow_id(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _storage(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the storage is empty: give an absolute path or a URI")
    return text
