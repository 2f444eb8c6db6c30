"""Texts of users and of foreign programs, as they may stand in a log, a terminal or a document."""

from __future__ import annotations

import re

from airflow_provider_rayworkflow.workflow.format.shortening import shorten

# Colours and the like: what a terminal obeys, and a log shows as rubbish.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
_NOT_SHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def shown_text(text: str) -> str:
    """The text without what a terminal would obey, encodable, and cut where it is long.

    Escape sequences are left out. Other control characters but for ends of lines and tabs, lone
    surrogates, and what changes the direction of writing stand as Python writes them (``\\x00``).
    """
    return escaped(_ESCAPES.sub("", shorten(text).replace("\r\n", "\n")))


def escaped(text: str) -> str:
    """The whole text; what a terminal would obey stands as Python writes it (``\\x1b``).

    Ends of lines and tabs are left.
    """
    return _NOT_SHOWN.sub(lambda match: repr(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """The text as :func:`escaped`, on one line: an id can't look like a second row."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")
