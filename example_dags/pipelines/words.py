"""Counts words. Imported where Ray runs, and nowhere else."""

import time
from collections import Counter

from airflow_provider_rayworkflow import workflow


@workflow.task
def load(lines: list[str]) -> list[list[str]]:
    return [line.lower().split() for line in lines]


@workflow.task
def count(words: list[list[str]]) -> Counter[str]:
    return Counter(word for line in words for word in line)


@workflow.task
def most_common(counted: Counter[str], n: int, pause_s: float) -> dict[str, int]:
    time.sleep(pause_s)
    return dict(counted.most_common(n))


def common_words(
    lines: list[str], n: int = 3, pause_s: float = 0.0
) -> workflow.Node[dict[str, int]]:
    """The graph: load → count → most_common.

    :param pause_s: how long the last task takes, in seconds.
    """
    return most_common(count(load(lines)), n, pause_s)
