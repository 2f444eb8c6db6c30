"""The old library: chains, fan-outs, many workflows, resumes, listings.

It is recursive: a chain of 1,000 needs a higher limit in the driver and in the manager, and a larger
stack than the main thread has.
"""

import contextlib
import logging
import shutil
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from answering import answer, seconds  # isort: split

import ray
from ray import workflow
from ray.workflow.workflow_access import get_management_actor

RECURSION_LIMIT = 100_000
STACK_BYTES = 512 * 2**20


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


def graph_of_chain(length):
    node = pass_on.bind(0)
    for _ in range(length - 1):
        node = pass_on.bind(node)
    return node


def chain(length):
    return seconds(lambda: workflow.run(graph_of_chain(length)))


def fan_out(width):
    return seconds(lambda: workflow.run(count.bind(*map(pass_on.bind, range(width)))))


def many(number, length):
    def run_all():
        ray.get([workflow.run_async(graph_of_chain(length)) for _ in range(number)])

    return seconds(run_all)


def resume(folder, done):
    """Of a workflow of which all but the last task are done."""
    name = uuid.uuid4().hex
    graph = fail_once.bind(f"{folder}/{name}", *map(pass_on.bind, range(done)))
    with contextlib.suppress(workflow.WorkflowExecutionError):
        workflow.run(graph, workflow_id=name)
    return seconds(lambda: workflow.resume(name))


def copy_finished(storage, number):
    """Have so many workflows that have ended: one that did, copied."""
    workflow.run(graph_of_chain(1), workflow_id="w0")
    root = Path(storage, "workflows")
    successful = root / "__status__" / "SUCCESSFUL"
    for copy in range(1, number):
        shutil.copytree(root / "w0", root / f"w{copy}")
        shutil.copyfile(successful / "w0", successful / f"w{copy}")
    found = workflow.list_all()
    if len(found) != number:
        raise RuntimeError(f"{len(found)} are listed instead of {number}")


def get_status(number):
    def ask():
        for _ in range(number):
            workflow.get_status("w1")

    return seconds(ask)


def raise_limit(*_):
    sys.setrecursionlimit(RECURSION_LIMIT)


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
    workflow.init()
    raise_limit()
    manager = get_management_actor()
    ray.get(manager.__ray_call__.remote(raise_limit))
    works = {
        "chain": chain,
        "fan-out": fan_out,
        "many": many,
        "resume": lambda done: resume(folder, done),
        "copy_finished": lambda number: copy_finished(f"{folder}/storage", number),
        "list_all": lambda: seconds(workflow.list_all),
        "get_status": get_status,
    }
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=answer, args=[works])
    thread.start()
    thread.join()
    ray.shutdown()
