"""A map over many items of which some fail: how much memory the manager takes for each, and the time."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Result
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand
from airflow_provider_rayworkflow.workflow.scheduling.schedule import Schedule
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from benchmarks.rows import Row, by_count, by_time

#: What a manager may hold for an item.
ALLOWED_BYTES = 3_000


@workflow.task
def fails_for_each_hundredth(number: int) -> int:
    if number % 100 == 7:
        raise ValueError(f"{number} fails")
    return number


def measure(quick: bool) -> list[Row]:
    items, timed = (2_000, 2_000) if quick else (100_000, 20_000)
    work = "map over {:,} items, of which 1 % fail"
    return [
        by_count(
            work.format(items),
            "3 KB of the manager's memory an item",
            ours=round(_bytes_an_item(items)),
            allowed=ALLOWED_BYTES,
            unit="bytes",
        ),
        by_time(
            work.format(timed),
            "ten times as long as a tenth of the items",
            ours=_seconds(timed),
            theirs=10 * _seconds(timed // 10),
            goal="≥ 1 (linear)",
        ),
    ]


def _bytes_an_item(items: int) -> float:
    """The most that a run holds: all items are on their way to workers, and then all have their results."""
    made = encode_graph(_expanded(items)).to_bytes()
    top = encode_graph(fails_for_each_hundredth.map(range(items), max_failed="2%"))
    schedule = Schedule(Snapshot(claim=_CLAIM, graph=top))
    table = AttemptTable(
        _Holding(),
        take_back=lambda: None,
        follow=lambda attempt, accept: None,
        enqueue=lambda call: None,
        clock=time.time,
    )
    node = schedule.take_ready()
    if node is None:
        raise RuntimeError("the map should have begun")
    gc.collect()
    tracemalloc.start()
    graph = Graph.from_bytes(made)
    schedule.continued(node, graph, schedule.allocate_ids(graph, node))
    started = []
    while (node := schedule.take_ready()) is not None:
        table.start(node, node.task_run(_CLAIM, node.attempts))
        started.append(node)
    on_the_way = _held()
    for node in started[:items]:
        result = Result(encoding=Encoding.JSON, inline=node.task_id.encode())
        schedule.returned(node, result)
        schedule.finished(node, result)
    with_results = _held()
    tracemalloc.stop()
    return max(on_the_way, with_results) / items


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class _Holding:
    """A runner that runs nothing."""

    def __init__(self) -> None:
        self._errands: list[Errand] = []

    def start(self, errand: Errand) -> None:
        self._errands.append(errand)

    def stop(self, errand: Errand) -> None:
        raise NotImplementedError


_CLAIM = Claim(
    workflow_id="w",
    epoch=1,
    manager_id="m",
    claimed_at=0.0,
    graph_epoch=1,
    base_epoch=1,
    user_metadata={},
)


def _expanded(items: int) -> Any:
    node = fails_for_each_hundredth.map(range(items), max_failed="2%")
    return node._body(*node._bound_args)


def _seconds(items: int) -> float:
    with testing.in_process() as workflows:
        begun_at = time.perf_counter()
        result = workflows.run(
            fails_for_each_hundredth.map(range(items), max_failed="2%"), workflow_id="w"
        )
        seconds = time.perf_counter() - begun_at
        if len(result) + len(result.failed) != items:
            raise RuntimeError(f"{result!r} is not the result of {items} items")
        return seconds
