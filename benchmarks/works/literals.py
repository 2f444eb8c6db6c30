"""Large literals in graphs: their fingerprints, beside their pickles."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from benchmarks.rows import Row, by_time, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, scale = (1, 100) if quick else (5, 1)
    values = 1_000_000 // scale
    dicts = 200_000 // scale
    rows = []
    for what, make in (
        (f"{values:,} floats", lambda: [n / 7 for n in range(values)]),
        (f"{values:,} ints", lambda: list(range(1_000, values + 1_000))),
        (f"{values:,} texts", lambda: [f"text {n}" for n in range(values)]),
        (f"{dicts:,} dicts", lambda: [_record(n) for n in range(dicts)]),
        (
            f"{dicts:,} nested dicts",
            lambda: [_record(n) | {"tags": ["a", str(n)], "at": {"x": n}} for n in range(dicts)],
        ),
    ):
        seconds = _in_turns(make(), rounds)
        rows.append(
            by_time(
                f"fingerprint of a list of {what}",
                "1.5 times its pickling",
                ours=seconds["ours"],
                theirs=1.5 * seconds["pickling"],
                goal="≥ 1",
            )
        )
    rows.append(_graph_of_lists(100_000 // scale, rounds))
    return rows


def _graph_of_lists(values: int, rounds: int) -> Row:
    """The graph has their pickles, and their fingerprints."""
    lists = [[number / 7 for number in range(values)] for _ in range(30)]
    graph = count([count(numbers) for numbers in lists])
    seconds = interleaved(
        {
            "pickling": lambda: [cloudpickle.dumps(numbers) for numbers in lists],
            "ours": lambda: encode_graph(graph),
        },
        rounds=rounds,
        clock=time.process_time,
    )
    return by_time(
        f"make a graph of 30 tasks that take {values:,} floats each",
        "2.5 times their pickling",
        ours=seconds["ours"],
        theirs=2.5 * seconds["pickling"],
        goal="≥ 1",
    )


@workflow.task
def count(values: list[Any]) -> int:
    return len(values)


def _record(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"name {number}", "score": number / 7}


def _in_turns(value: Any, rounds: int) -> dict[str, float]:
    parties: dict[str, Callable[[], object]] = {
        "pickling": partial(pickle.dumps, value, protocol=5),
        "ours": partial(fingerprints.of_call, [value], {}, replace=lambda _: NotImplemented),
    }
    return interleaved(parties, rounds=rounds, clock=time.process_time)
