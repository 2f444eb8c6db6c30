"""Making a graph: how long it takes, and how that grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from benchmarks.graphs import count, pass_on
from benchmarks.rows import Row, by_time, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 1_000) if quick else (5, 10_000)
    rows = []
    for kind, make in (("fan-out", _fan_out), ("ladder (each takes the two before it)", _ladder)):
        small, large = make(size), make(size * 10)
        seconds = interleaved(
            {
                "pickling": partial(_pickle, size),
                "small": partial(_submit, small),
                "large": partial(_submit, large),
            },
            rounds=rounds,
            clock=time.process_time,
        )
        work = f"make a graph of {size:,} tasks: {kind}"
        rows.append(
            by_time(
                work,
                "twice the pickling of its functions and arguments",
                ours=seconds["small"],
                theirs=2 * seconds["pickling"],
                goal="≥ 1",
            )
        )
        rows.append(
            by_time(
                f"make a graph of {size * 10:,} tasks: {kind}",
                f"ten times as long as {size:,}",
                ours=seconds["large"],
                theirs=10 * seconds["small"],
                goal="≥ 1 (linear)",
            )
        )
    for kind, make in (("fan-out", _fan_out), ("ladder", _ladder)):
        called = partial(make, size, _task_of(pass_on), _task_of(count))
        seconds = interleaved(
            {
                "called": partial(_make_and_submit, called),
                "bound": partial(_make_and_submit, partial(make, size)),
            },
            rounds=rounds,
            clock=time.process_time,
        )
        rows.append(
            by_time(
                f"call tasks and make a graph of {size:,} of them: {kind}",
                "the same of .bind()",
                ours=seconds["called"],
                theirs=seconds["bound"],
                goal="≥ 1",
            )
        )
    return rows


def _task_of(remote: Any) -> Callable[..., Any]:
    return workflow.task(remote._function)


def _submit(dag: Any) -> None:
    encode_graph(dag).to_bytes()


def _make_and_submit(make: Callable[[], Any]) -> None:
    _submit(make())


def _pickle(size: int) -> None:
    function: Callable[..., Any] = pass_on._function
    cloudpickle.dumps(function)
    for number in range(size):
        cloudpickle.dumps(((number,), {}))


Make = Callable[..., Any]


def _fan_out(size: int, one: Make = pass_on.bind, many: Make = count.bind) -> Any:
    return many(*[one(number) for number in range(size - 1)])


def _ladder(size: int, one: Make = pass_on.bind, many: Make = count.bind) -> Any:
    before, last = one(0), one(1)
    for _ in range(size - 2):
        before, last = last, many(before, last)
    return last
