"""The same work as bare Ray tasks and as workflows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def pass_on(value: Any) -> Any:
    return value


@ray.remote
def count(*values: Any) -> int:
    return len(values)


@ray.remote
def work_50_ms(value: Any) -> Any:
    time.sleep(0.05)
    return value


def _chain(make: Callable[[Any], Any], length: int) -> Any:
    node = make(0)
    for _ in range(length - 1):
        node = make(node)
    return node


def bare_chain(length: int) -> None:
    ray.get(_chain(pass_on.remote, length))


def our_chain(length: int) -> None:
    workflow.run(_chain(pass_on.bind, length))


def bare_fan_out(width: int) -> None:
    ray.get(count.remote(*[pass_on.remote(number) for number in range(width)]))


def our_fan_out(width: int) -> None:
    workflow.run(count.bind(*[pass_on.bind(number) for number in range(width)]))


def bare_many(number: int, length: int = 5) -> None:
    ray.get([_chain(pass_on.remote, length) for _ in range(number)])


def our_many(number: int, length: int = 5) -> None:
    # Each has a caller of its own: bare Ray, too, has all of them under way at once.
    with ThreadPoolExecutor(number) as callers:
        runs = callers.map(
            lambda _: workflow.run_async(_chain(pass_on.bind, length)), range(number)
        )
        ray.get(list(runs))


def bare_real_fan_out(width: int) -> None:
    ray.get(count.remote(*[work_50_ms.remote(number) for number in range(width)]))


def our_real_fan_out(width: int) -> None:
    workflow.run(count.bind(*[work_50_ms.bind(number) for number in range(width)]))


def bare_real_chains(chains: int, length: int) -> None:
    ray.get(count.remote(*[_chain(work_50_ms.remote, length) for _ in range(chains)]))


def our_real_chains(chains: int, length: int) -> None:
    workflow.run(count.bind(*[_chain(work_50_ms.bind, length) for _ in range(chains)]))
