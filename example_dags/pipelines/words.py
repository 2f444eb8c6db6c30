"""Counts words. Imported where Ray runs, and nowhere else."""

import time
from collections import Counter

import ray

from airflow_provider_rayworkflow import workflow


@ray.remote
def load(lines):
    return [line.lower().split() for line in lines]


@ray.remote
def count(words):
    return Counter(word for line in words for word in line)


@ray.remote
def most_common(counted, n, pause_s):
    time.sleep(pause_s)
    return dict(counted.most_common(n))


def common_words(lines: list[str], n: int = 3, pause_s: float = 0.0):
    """The graph: load → count → most_common.

    :param pause_s: how long the last task takes, in seconds.
    """
    loaded = load.options(**workflow.options(task_id="load")).bind(lines)
    counted = count.options(**workflow.options(task_id="count")).bind(loaded)
    return most_common.options(**workflow.options(task_id="most_common")).bind(counted, n, pause_s)
