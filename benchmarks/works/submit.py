"""Making a graph: how long it takes, and how that grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle

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
    return rows


def _submit(dag: Any) -> None:
    encode_graph(dag).to_bytes()


def _pickle(size: int) -> None:
    function: Callable[..., Any] = pass_on._function
    cloudpickle.dumps(function)
    for number in range(size):
        cloudpickle.dumps(((number,), {}))


def _fan_out(size: int) -> Any:
    return count.bind(*[pass_on.bind(number) for number in range(size - 1)])


def _ladder(size: int) -> Any:
    before, last = pass_on.bind(0), pass_on.bind(1)
    for _ in range(size - 2):
        before, last = last, count.bind(before, last)
    return last
