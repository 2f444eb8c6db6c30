"""What type checkers know of tasks and nodes; :mod:`test_types` has them check this file.

Where an error is expected, it is ignored by its name, and an ignore that is not needed is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from airflow_provider_rayworkflow import workflow


@dataclass
class Table:
    rows: list[int]


@workflow.task
def load(city: str, limit: int = 10) -> Table:
    return Table(rows=[len(city)][:limit])


@workflow.task(retry=workflow.Retry(attempts=3), memory="2GiB", num_cpus=2, name="sum")
def total(tables: list[Table]) -> int:
    return sum(sum(table.rows) for table in tables)


@workflow.task
async def fetch(url: str) -> bytes:
    return url.encode()


@workflow.task(timeout_s=10)
async def fetch_soon(url: str) -> bytes:
    return url.encode()


def calls_give_nodes_of_what_the_function_returns() -> None:
    assert_type(load("Rome"), workflow.Node[Table])
    assert_type(total([load("Rome"), load("Oslo")]), workflow.Node[int])
    assert_type(fetch("a"), workflow.Node[bytes])
    assert_type(fetch_soon("a"), workflow.Node[bytes])


def other_options_leave_the_types_as_they_are() -> None:
    assert_type(load.with_options(name="rome", num_cpus=1)("Rome"), workflow.Node[Table])
    assert_type(total.with_options(catch_exceptions=False)([]), workflow.Node[int])


def outputs_and_parts_are_nodes() -> None:
    train, test = load.outputs("train", "test")("Rome")
    assert_type(train, workflow.Node[Any])
    assert_type(test, workflow.Node[Any])
    assert_type(load("Rome").rows, workflow.Node[Any])
    assert_type(load("Rome")["rows"][0], workflow.Node[Any])


def the_function_itself_has_its_own_types() -> None:
    assert_type(load.fn("Rome", limit=2), Table)
    assert_type(total.fn([Table(rows=[1])]), int)


def a_node_may_be_of_a_wider_type() -> None:
    node: workflow.Node[object] = load("Rome")
    nodes: list[workflow.Node[float]] = [total([])]
    assert_type(total([node, *nodes]), workflow.Node[int])


def mistakes_are_errors() -> None:
    load.fn(1)  # type: ignore[arg-type]
    load.fn("Rome", most=1)  # type: ignore[call-arg]
    load.with_options(cpus=1)  # type: ignore[call-arg]
    load.with_options(num_cpus="two")  # type: ignore[arg-type]
    workflow.task(on_change="never")  # type: ignore[call-overload]
    node: workflow.Node[str] = load("Rome")  # type: ignore[assignment]
    total([node])
