"""Corrections of the DAG file of ``changing/``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).parent / "changing" / "changing.py"

#: The DAGs of the file: one for each policy, with a workflow of the same id.
POLICIES = ("reuse", "rerun_changed", "refuse")

Edit = tuple[str, str]

FIX: Edit = ('raise ValueError("a bug")', "return sum(rows) + sum(others)")
CHANGES: list[Edit] = [
    ("DAY = 1", "DAY = 2"),  # an argument, and so what is made of it
    ("return 1000", "return 2000"),  # a function
    ("OFFSET = 100", "OFFSET = 200"),  # what a function closes over
    ("value * 2)", "value * 3)"),  # a lambda
    (".bind(first, 2)", ".bind(first, 3)"),  # a continuation
    ('task("renamed", extra)', 'task("renamed again", extra)'),
    ('task("removed", extra).bind(2)', 'task("added", extra).bind(3)'),
]
#: What ``on_change="refuse"`` has against them.
REFUSED = [
    "load: its arguments have changed",
    "clean: it takes what may change: load",
    "constant: its code has changed",
    "shift: its code has changed",
    "lambda: its code has changed",
    "split: its code has changed",
    "renamed again: it is new",
    "added: it is new",
    "removed: it is not in the graph any more",
    "renamed: it is not in the graph any more",
]


def edited(source: str, edits: Iterable[Edit]) -> str:
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source
