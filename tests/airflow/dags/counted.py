"""Workflows whose tasks leave a line in a file each time that they run."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import ray


@ray.remote(max_retries=0)
def step(name, folder, *inputs, fail_once=False):
    count(folder, name)
    if fail_once and not Path(folder, f"{name} failed").exists():
        Path(folder, f"{name} failed").touch()
        raise RuntimeError(f"{name} fails once")
    return [name, *inputs]


@ray.remote(max_retries=0)
def gate(folder, *inputs):
    """Ends when the test opens the gate."""
    count(folder, "gate")
    print("the gate is watched")
    while not Path(folder, "open").exists():
        time.sleep(0.05)
    return ["gate", *inputs]


@ray.remote(max_retries=0)
def time_out(folder, *inputs):
    """At first, makes Airflow believe that the execution_timeout of the task process is over."""
    count(folder, "time_out")
    if not Path(folder, "timed out").exists():
        Path(folder, "timed out").touch()
        os.kill(int(Path(folder, "task_process").read_text()), signal.SIGALRM)
        time.sleep(60)
    return ["time_out", *inputs]


@ray.remote(max_retries=0)
def lose_ray(folder, *inputs):
    """At first, takes the local Ray and all its workers down."""
    count(folder, "lose_ray")
    if not Path(folder, "lost").exists():
        Path(folder, "lost").touch()
        raylet = psutil.Process().parent()
        for process in [*raylet.children(recursive=True), raylet]:
            if process.pid != os.getpid():
                with suppress(psutil.NoSuchProcess):  # it has ended by itself
                    process.kill()
        time.sleep(60)
    return ["lose_ray", *inputs]


def failing(folder: str):
    """a, b → c, which fails once → d."""
    begin(folder)
    a, b = step.bind("a", folder), step.bind("b", folder)
    c = step.bind("c", folder, a, b, fail_once=True)
    return step.bind("d", folder, c)


def gated(folder: str):
    """a → gate → z."""
    begin(folder)
    return step.bind("z", folder, gate.bind(folder, step.bind("a", folder)))


def slow(folder: str):
    """a → time_out → z."""
    begin(folder)
    return step.bind("z", folder, time_out.bind(folder, step.bind("a", folder)))


def losing_ray(folder: str):
    """a → lose_ray → z."""
    begin(folder)
    return step.bind("z", folder, lose_ray.bind(folder, step.bind("a", folder)))


def begin(folder):
    """Called in the task process: the graph of an import path is built there, without a cluster."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "task_process").write_text(str(os.getpid()))


def count(folder, name):
    with open(Path(folder, "ran"), "a") as file:
        file.write(f"{name}\n")
