"""What came of runs, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How one run ended.

    :ivar faults: how many were injected.
    :ivar tasks: how often a task began.
    :ivar cut_off: how many of these ended with their process.
    :ivar begun_there: how many had begun on a node when it was killed.
    :ivar committed: checkpoints at the end; of these, ``lost`` and ``repeated`` should be none.
    :ivar resumes: how often the suite had to ask for a workflow to go on.
    """

    seed: int
    fault: str
    faults: int
    workflows: int
    tasks: int
    cut_off: int
    begun_there: int
    committed: int
    lost: int
    repeated: int
    resumes: int
    seconds: float
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def table(reports: Sequence[Report]) -> str:
    """The figures by fault, in Markdown."""
    heads = ["fault", "runs", "injected", "workflows", "tasks begun", "cut off", "committed"]
    heads += ["lost", "repeated", "other violations"]
    lines = [heads, ["---"] * len(heads)]
    names = dict.fromkeys(report.fault for report in reports)
    for name in [*names, "all"]:
        group = [report for report in reports if name in (report.fault, "all")]
        others = sum(len(r.problems) - r.lost - r.repeated for r in group)
        sums = [len(group), *(sum(getattr(r, field) for r in group) for field in _SUMMED), others]
        lines.append([name, *(f"{number:,}" for number in sums)])
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    there = sum(report.begun_there for report in reports)
    return "\n".join([*rows, "", f"Tasks that had begun on a node that was then killed: {there:,}"])


_SUMMED = ("faults", "workflows", "tasks", "cut_off", "committed", "lost", "repeated")
