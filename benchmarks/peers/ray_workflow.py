"""The old library: tasks a second, and seconds for a resume. Prints JSON.

Its chains are short: it is recursive and can't run one of 1,000.
"""

import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time

import ray
from ray import workflow

rounds, size = int(sys.argv[1]), int(sys.argv[2])


@ray.remote
def pass_on(value):
    return value


@ray.remote
def count(*values):
    return len(values)


@ray.remote
def fail_once(path, *values):
    try:
        with open(path, "x"):
            pass
    except FileExistsError:
        return len(values)
    raise ValueError("the first time")


def chain(length):
    node = pass_on.bind(0)
    for _ in range(length - 1):
        node = pass_on.bind(node)
    return node


def many(number):
    ray.get([workflow.run_async(chain(5)) for _ in range(number)])


def resume(folder, number):
    path, name = f"{folder}/failed-{number}", f"resumed-{number}"
    graph = fail_once.bind(path, *[pass_on.bind(i) for i in range(size)])
    with contextlib.suppress(Exception):
        workflow.run(graph, workflow_id=name)
    begun_at = time.perf_counter()
    workflow.resume(name)
    return time.perf_counter() - begun_at


def rate(tasks, do):
    times = []
    for number in range(rounds + 1):
        begun_at = time.perf_counter()
        do()
        if number or rounds == 1:
            times.append(time.perf_counter() - begun_at)
    return tasks / statistics.median(times)


with tempfile.TemporaryDirectory() as folder:
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=400 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        storage=f"file://{folder}/storage",
    )
    logging.disable(logging.WARNING)
    length = min(size, 100)
    found = {
        "chain": rate(length, lambda: workflow.run(chain(length))),
        "fan-out": rate(size, lambda: workflow.run(count.bind(*map(pass_on.bind, range(size))))),
        "many": rate(size, lambda: many(size // 5)),
        "resume": statistics.median(resume(folder, number) for number in range(rounds)),
    }
    begun_at = time.perf_counter()
    listed = workflow.list_all()
    found["list"] = (time.perf_counter() - begun_at) / len(listed)
    ray.shutdown()
print(json.dumps(found))
