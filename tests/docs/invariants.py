"""The table of docs/reliability.md: which tests protect which invariant.

A test says so with ``@pytest.mark.invariant(number)``. ``python tests/docs/invariants.py`` writes
the table anew; ``test_invariants.py`` fails when it is not as the marks are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "reliability.md"

INVARIANTS = {
    1: "A committed task never runs again, unless a person or changed inputs ask for it.",
    2: "A checkpoint counts only if it is whole; damage is reported by name, and never loaded.",
    3: "At most one live manager executes a workflow, also across clusters and when clocks jump.",
    4: "A status is honest: active only while the owner is alive; a failure is never a success.",
    5: "The same id submitted twice at the same moment gives one execution, with one result.",
    6: "Airflow never kills work by accident; the end of a task by a person suspends.",
    7: "Airflow's processes never unpickle, parse DAG files without Ray and pyarrow, and believe "
    "nothing unsigned where a signing key is set.",
    8: "Every status change is in one table of legal transitions.",
    9: "Bad input is rejected before anything is written, with the value and the remedy.",
    10: "Which checkpoints count is decided in one place.",
    11: "One bad object hides, stops or breaks nothing else.",
    12: "Cost follows the work at hand, not the history.",
}

#: What is not true yet, or not tested. Part of the table.
NOTES: dict[int, str] = {}

BEGIN = "<!-- invariants: by tests/docs/invariants.py from the tests' marks -->\n"
END = "<!-- invariants: end -->\n"


@dataclass(frozen=True, order=True)
class Mark:
    """A test that protects an invariant."""

    number: int
    path: str
    test: str


def collect(root: Path = REPOSITORY / "tests") -> list[Mark]:
    """The marks of all test files below a folder; nothing is imported."""
    return sorted(
        Mark(number, path.relative_to(root.parent).as_posix(), test)
        for path in root.rglob("test_*.py")
        for test, number in _marks_of(ast.parse(path.read_text()))
    )


def _marks_of(module: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == (
                    "pytest.mark.invariant"
                ):
                    for argument in decorator.args:
                        yield node.name, int(ast.literal_eval(argument))


def table(marks: list[Mark]) -> str:
    """The table as Markdown."""
    lines = ["| | invariant | tests that fail without it |", "| --- | --- | --- |"]
    for number, text in INVARIANTS.items():
        files: dict[str, list[str]] = {}
        for mark in marks:
            if mark.number == number:
                files.setdefault(mark.path, []).append(f"`{mark.test}`")
        cells = [f"{path}: {', '.join(tests)}" for path, tests in files.items()]
        note = [NOTES[number]] if number in NOTES else []
        lines.append(f"| {number} | {text} | {'<br>'.join([*note, *cells]) or 'none yet'} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, marks: list[Mark]) -> str:
    """The page with the table of the marks in place of the one that it has."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no place for the table of invariants.")
    return f"{before}{begin}{table(marks)}{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), collect()))
