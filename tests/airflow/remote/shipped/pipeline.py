"""A workflow that only the cluster imports: Airflow's processes don't have this folder."""

import os
import time
from pathlib import Path

import ray

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import workflow


@ray.remote(max_retries=0)
def a(folder):
    count(folder, "a")
    print("a says hello")
    return "a"


@ray.remote(max_retries=0)
def b(folder, before, secret):
    count(folder, "b")
    if not Path(folder, "b failed").exists():
        Path(folder, "b failed").touch()
        raise RuntimeError("b fails once")
    return [before, len(secret)]


@ray.remote(max_retries=0)
def where(before):
    """Where the code of both sides comes from, and what of the runtime environment is there."""
    return {
        "before": before,
        "package": airflow_provider_rayworkflow.__file__,
        "pipeline": __file__,
        "flavour": os.environ.get("FLAVOUR"),
        "airflow_home": os.environ.get("AIRFLOW_HOME"),
    }


@ray.remote(max_retries=0, num_cpus=0)
def gate(folder, before):
    count(folder, "gate")
    print("the gate is watched")
    while not Path(folder, "open").exists():
        time.sleep(0.05)
    return before


@ray.remote(max_retries=0)
def after(folder, before):
    count(folder, "after")
    return [before, "after"]


@ray.remote(max_retries=0)
def fragile(folder, before):
    count(folder, "fragile")
    if not Path(folder, "fragile failed").exists():
        Path(folder, "fragile failed").touch()
        raise RuntimeError("fragile fails once")
    return [before, "fragile"]


def fails_once(folder: str):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return fragile.bind(folder, a.bind(folder))


def daily(folder: str, secret: str):
    Path(folder).mkdir(parents=True, exist_ok=True)
    named = workflow.options(task_id="b")
    return where.bind(b.options(**named).bind(folder, a.bind(folder), secret))


@ray.remote(max_retries=0)
def said(item):
    return item


def echo(item: str):
    return said.bind(item)


def gated(folder: str):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return after.bind(folder, gate.bind(folder, a.bind(folder)))


def count(folder, name):
    with open(Path(folder, "ran"), "a") as file:
        file.write(f"{name}\n")
