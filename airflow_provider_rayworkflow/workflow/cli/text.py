"""What the commands show to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from airflow_provider_rayworkflow.workflow.format.columns import column_widths, columns
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.model.graph import DEFAULT_MAX_RETRIES

_DEFAULTS = {
    "task_type": "FUNCTION",
    "max_retries": DEFAULT_MAX_RETRIES,
    "catch_exceptions": False,
    "retry_exceptions": False,
    "checkpoint": True,
}


# As many rows are held until their columns have widths.
_ROWS_AT_ONCE = 1000


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under their titles."""
    return "\n".join(table_lines(titles, rows))


def table_lines(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The same line by line, as the rows come. After a thousand rows, columns may become wider."""
    cells = ([one_line(str(cell)) for cell in row] for row in rows)
    block: list[Sequence[str]] = [titles, *islice(cells, _ROWS_AT_ONCE)]
    widths: Sequence[int] = ()
    while block:
        widths = column_widths(block, widths)
        yield from columns(block, widths)
        block = list(islice(cells, _ROWS_AT_ONCE))


def fields(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values, one of each a line."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {one_line(str(value))}" for name, value in rows)


def task_options(task: dict[str, Any]) -> str:
    """The options of a task that differ from the defaults, ``""`` for none."""
    options = dict(task["task_options"])
    shown = options.pop("ray_options") | {
        name: value for name, value in options.items() if value != _DEFAULTS.get(name)
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def first_line(exc: Exception) -> str:
    """What an error says first, or its type."""
    return next(iter(str(exc).splitlines()), "") or type(exc).__name__
