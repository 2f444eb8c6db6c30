"""Large literals in graphs: their fingerprints, beside their pickles.

Each is made once in a process of its own, as an author's graph is: the memory that a pickle needs is
new to the process then, which takes as long as to fill it.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from benchmarks.rows import Row, by_time, medians, seconds_of

_LISTS = 30


def measure(quick: bool) -> list[Row]:
    scale = 100 if quick else 1
    values, dicts = 1_000_000 // scale, 200_000 // scale
    rows = [
        _row(f"fingerprint of a list of {number:,} {what}", 1.5, _fingerprint, make, number, quick)
        for what, make, number in (
            ("floats", _floats, values),
            ("ints", _ints, values),
            ("texts", _texts, values),
            ("dicts", _dicts, dicts),
            ("nested dicts", _nested_dicts, dicts),
        )
    ]
    number = values // 10
    name = f"make a graph of {_LISTS} tasks that take {number:,} floats each"
    # The graph has their pickles, and their fingerprints.
    return [*rows, _row(name, 2.5, _graph, _lists, number, quick)]


def _row(
    name: str,
    times: float,
    ours: Callable[[Any], object],
    make: Callable[[int], Any],
    number: int,
    quick: bool,
) -> Row:
    seconds = medians(
        {
            "pickling": partial(_seconds, _pickle, make, number, quick),
            "ours": partial(_seconds, ours, make, number, quick),
        },
        rounds=0 if quick else 9,
    )
    return by_time(
        name,
        f"{times} times their pickling",
        ours=seconds["ours"],
        theirs=times * seconds["pickling"],
        goal="≥ 1",
    )


def _seconds(
    do: Callable[[Any], object], make: Callable[[int], Any], number: int, quick: bool
) -> float:
    """How long it takes in a new process; a quick run starts none."""
    if quick:
        return _timed(do, make, number)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (do, make, number))


def _timed(do: Callable[[Any], object], make: Callable[[int], Any], number: int) -> float:
    return seconds_of(partial(do, make(number)), clock=time.process_time)


def _pickle(value: Any) -> list[bytes]:
    parts = value if isinstance(value[0], list) else [value]
    return [pickle.dumps(part, protocol=5) for part in parts]


def _fingerprint(value: Any) -> object:
    return fingerprints.of_call([value], {}, replace=lambda _: NotImplemented)


def _graph(lists: list[list[float]]) -> object:
    return encode_graph(count([count(numbers) for numbers in lists]))


@workflow.task
def count(values: list[Any]) -> int:
    return len(values)


def _floats(number: int) -> list[float]:
    return [n / 7 for n in range(number)]


def _lists(number: int) -> list[list[float]]:
    return [_floats(number) for _ in range(_LISTS)]


def _ints(number: int) -> list[int]:
    return list(range(1_000, number + 1_000))


def _texts(number: int) -> list[str]:
    return [f"text {n}" for n in range(number)]


def _dicts(number: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name {n}", "score": n / 7} for n in range(number)]


def _nested_dicts(number: int) -> list[dict[str, Any]]:
    return [row | {"tags": ["a", row["name"]], "at": {"x": row["id"]}} for row in _dicts(number)]
