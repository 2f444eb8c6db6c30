"""Rows of text in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest


def columns(rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """A line for each row, its cells padded to the widths of their columns.

    :param rows: of the same number of cells, one line each.
    :param widths: the least ones, in characters.
    """
    given = list(rows)
    widths = column_widths(given, widths)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in given
    ]


def column_widths(rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> list[int]:
    """The width of each column, in characters.

    :param widths: the least ones.
    """
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [max(pair) for pair in zip_longest(longest, widths, fillvalue=0)]
