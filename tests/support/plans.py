"""Random workflows with a known end: what a task does is fixed, and so is what comes out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.fingerprints import of_text
from airflow_provider_rayworkflow.workflow.model.graph import (
    Graph,
    RetryOptions,
    Task,
    TaskOptions,
    allocate_ids,
)
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Form, Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """What one task does.

    :ivar failures: what goes wrong in the first attempts of each run: ``"S"`` a system failure,
        ``"A"`` an exception of the task.
    :ivar ends_with: what later attempts do.
    """

    name: str
    named_by_author: bool
    upstream: tuple[int, ...]
    options: TaskOptions
    failures: str
    ends_with: str | tuple[PlannedTask, ...]  # "value", "error", or a continuation

    def attempt(self, number: int) -> str | tuple[PlannedTask, ...]:
        """What the attempt with this number does."""
        return self.failures[number - 1] if number <= len(self.failures) else self.ends_with


Plan = tuple[PlannedTask, ...]


# ---- what comes out


@dataclass(frozen=True)
class Expected:
    """A result: its form and, of a value, a number that depends on all that went into it."""

    form: Form
    value: int = 0


FAILED = None


def expected(plan: Plan, seed: int = 0) -> Expected | None:
    """The workflow's output as Ray Workflows defines it; None if it fails."""
    found: dict[int, Expected | None] = {}
    for index in needed(plan):
        task = plan[index]
        inputs = [found[other] for other in task.upstream]
        if any(result is FAILED for result in inputs):
            return FAILED
        found[index] = expected_of(task, digest(seed, index, inputs))
        if found[index] is FAILED:
            return FAILED
    return found[len(plan) - 1]


def expected_of(task: PlannedTask, value: int) -> Expected | None:
    catches = task.options.catch_exceptions
    end = _end(task)
    if end == "value":
        return Expected(Form.CAUGHT_VALUE if catches else Form.VALUE, value)
    result = FAILED if end == "error" else expected(end, value)
    if not catches:
        return result
    if result is FAILED:
        return Expected(Form.CAUGHT_ERROR)
    if result.form is Form.VALUE:
        return replace(result, form=Form.CAUGHT_VALUE)
    return result


def _end(task: PlannedTask) -> str | Plan:
    options = task.options
    retried = errors = 0
    for kind in task.failures:
        if kind == "S" or (kind == "A" and options.retry is None):
            retried += 1
        if kind == "A":
            errors += 1
            if options.retry is not None:
                if errors >= options.retry.attempts:
                    return "error"
            elif not options.retry_exceptions:
                return "error"
        assert options.max_retries < 0 or retried <= options.max_retries  # so are plans made
    return task.ends_with


def digest(seed: int, index: int, inputs: Sequence[Expected | None]) -> int:
    shown = [(result.form.value, result.value) if result else None for result in inputs]
    return zlib.crc32(json.dumps([seed, index, shown]).encode())


def needed(plan: Plan) -> list[int]:
    """The tasks that the last one needs, inputs first."""
    wanted, pending = set(), [len(plan) - 1]
    while pending:
        index = pending.pop()
        if index not in wanted:
            wanted.add(index)
            pending.extend(plan[index].upstream)
    return sorted(wanted)


# ---- as a graph and back


def to_graph(
    plan: Plan, seed: int = 0, path: tuple[int, ...] = (), changed: Collection[int] = ()
) -> Graph:
    """A graph whose arguments say which task of the plan they are of.

    :param changed: tasks whose arguments are others.
    """
    arguments = [
        json.dumps([[*path, index], seed + (index in changed)]) for index in range(len(plan))
    ]
    return Graph(
        tasks=[
            Task(
                name=task.name,
                named_by_author=task.named_by_author,
                function=0,
                arguments=index + 1,
                upstream=task.upstream,
                options=task.options,
                literals=of_text(arguments[index]),
                code=of_text("code"),
            )
            for index, task in enumerate(plan)
        ],
        blobs=[b"", *(text.encode() for text in arguments)],
    )


@dataclass(frozen=True)
class Call:
    """One task as a worker sees it."""

    task: PlannedTask
    path: tuple[int, ...]
    seed: int

    def value(self, inputs: Sequence[Result]) -> int:
        return digest(self.seed, self.path[-1], [from_result(result) for result in inputs])

    def continuation(self, plan: Plan, inputs: Sequence[Result]) -> Graph:
        return to_graph(plan, self.value(inputs), self.path)


def call(plan: Plan, arguments: bytes) -> Call:
    path, seed = json.loads(arguments)
    tasks = plan
    for index in path[:-1]:
        continuation = tasks[index].ends_with
        assert isinstance(continuation, tuple)
        tasks = continuation
    return Call(tasks[path[-1]], tuple(path), seed)


def to_result(value: int) -> Result:
    return Result(encoding=Encoding.JSON, inline=json.dumps(value).encode())


def from_result(result: Result) -> Expected:
    if result.form is Form.CAUGHT_ERROR:
        return Expected(Form.CAUGHT_ERROR)
    if result.encoding is Encoding.PICKLE:  # of a task that failed, for one that takes failures
        return Expected(Form.CAUGHT_ERROR)
    assert result.inline is not None
    return Expected(result.form, json.loads(result.inline))


def committed(plan: Plan, records: dict[str, TaskRecord]) -> set[str]:
    """The tasks that a resume finds: committed, and so are the continuations they belong to."""
    found: set[str] = set()
    pending = allocate_ids(to_graph(plan), TaskIds())
    while pending:
        record = records.get(pending.pop())
        if record is not None:
            found.add(record.task_id)
            pending.extend(record.task_ids)
    return found


# ---- making them

NAMES = [("f", False), ("f", False), ("f", True), ("f_1", True), ("g", False), ("g_2", True)]


@st.composite
def plans(draw: st.DrawFn, depth: int = 3, failures: bool = True) -> Plan:
    """A plan of a few tasks, with continuations up to a depth."""
    tasks: list[PlannedTask] = []
    for index in range(draw(st.integers(1, 4))):
        upstream = draw(st.lists(st.integers(0, index - 1), max_size=3)) if index else []
        tasks.append(draw(_tasks(tuple(upstream), depth, failures)))
    return tuple(tasks)


@st.composite
def _tasks(draw: st.DrawFn, upstream: tuple[int, ...], depth: int, failures: bool) -> PlannedTask:
    name, named_by_author = draw(st.sampled_from(NAMES))
    ends = (
        ["value", "value"] + (["continuation"] if depth else []) + (["error"] if failures else [])
    )
    ends_with = draw(st.sampled_from(ends))
    wrong = draw(st.text("SA", max_size=2)) if failures else ""
    retry_exceptions = draw(st.booleans()) if failures else False
    retry = draw(st.none() | st.builds(_retry, st.integers(1, 3))) if failures else None
    # A task that fails for ever is not retried for ever.
    unlimited = draw(st.booleans()) and ends_with != "error"
    options = TaskOptions(
        catch_exceptions=draw(st.sampled_from([False, False, True])),
        checkpoint=draw(st.sampled_from([None, None, True, False])),
        max_retries=-1 if unlimited else len(wrong),
        retry_exceptions=retry_exceptions,
        retry=retry,
    )
    return PlannedTask(
        name=name,
        named_by_author=named_by_author,
        upstream=upstream,
        options=options,
        failures=wrong,
        ends_with=draw(plans(depth - 1, failures)) if ends_with == "continuation" else ends_with,
    )


def _retry(attempts: int) -> RetryOptions:
    return RetryOptions(attempts=attempts, wait_initial_s=0)
