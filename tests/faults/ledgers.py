"""Side effects that can be counted: tasks append lines to a file that outlives every process."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_rayworkflow.workflow.execution.context import WorkflowContext, get_context


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What a task attempt has written: that it began, or ended.

    :ivar what: ``"start"`` or ``"end"``; between these what a task notes of itself.
    :ivar number: what is noted: the step from which it goes on, a step, the memory that it has in MiB.
    :ivar way: how it is about to fail.
    :ivar parent: the process that started the worker: its node's raylet.
    :ivar at: seconds since the epoch.
    """

    what: str
    workflow_id: str
    task_id: str
    epoch: int
    attempt: int
    pid: int
    parent: int
    at: float
    number: int = 0
    way: str = ""


_LINE = re.compile(r'\{"what": [^{}]*\}')


@dataclass(frozen=True, slots=True)
class Ledger:
    """Lines in the order in which they came; each is one write at the end of the file."""

    path: Path

    def lines(self) -> list[Line]:
        if not self.path.exists():
            return []
        # A process that is killed may leave half a line, and the next one goes on behind it.
        whole = _LINE.findall(self.path.read_text())
        return [Line(**json.loads(line)) for line in whole]

    def starts(self) -> list[Line]:
        return [line for line in self.lines() if line.what == "start"]

    def running(self) -> list[Line]:
        """The starts of attempts that have not ended, or never will: their process was killed."""
        lines = self.lines()
        ended = {_attempt(line) for line in lines if line.what == "end"}
        return [line for line in lines if line.what == "start" and _attempt(line) not in ended]


@contextmanager
def entry(path: str) -> Iterator[int]:
    """Around what a task does: a line when it begins, a line when it ends or fails. Gives the attempt."""
    context = get_context()
    _write(path, "start", context)
    try:
        yield context.attempt
    finally:
        _write(path, "end", context)


def note(path: str, what: str, **more: int | str) -> None:
    """A line of the task that is running."""
    _write(path, what, get_context(), **more)


def _attempt(line: Line) -> tuple[str, str, int, int, int]:
    return (line.workflow_id, line.task_id, line.epoch, line.attempt, line.pid)


def _write(path: str, what: str, context: WorkflowContext, **more: int | str) -> None:
    line = {
        "what": what,
        "workflow_id": context.workflow_id,
        "task_id": context.task_id,
        "epoch": context.epoch,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "at": time.clock_gettime(time.CLOCK_REALTIME),  # not the one that a fault sets
    } | more
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
