"""A workflow that only the cluster imports: Airflow's processes don't have this folder."""

import os
import time
from pathlib import Path

import ray
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

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


@ray.remote(max_retries=0, num_cpus=0)
def gate_for_once(folder, before):
    """Closed when it is reached first, and open after that: nothing has to open it in time."""
    count(folder, "gate")
    while Path(folder, "ran").read_text().split().count("gate") < 2:
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


def fails_behind_gate(folder: str):
    """Longer than what is waited for before a deferral, if the gate is opened after that."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return fragile.bind(folder, gate.bind(folder, a.bind(folder)))


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


def built_late(folder: str):
    """Built when there is a file ``build``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "builds").touch()
    while not Path(folder, "build").exists():
        time.sleep(0.05)
    return gated(folder)


def gated_for_once(folder: str):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return after.bind(folder, gate_for_once.bind(folder, a.bind(folder)))


@ray.remote(max_retries=0)
def traced(folder, name, *before):
    """As with an instrumented library: it opens a span, which goes to a collector."""
    count(folder, name)
    print(f"{name} <says> hello")
    provider = TracerProvider()
    exporter = OTLPSpanExporter(Path(folder).with_name("collector").read_text())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("pipeline").start_as_current_span(f"opened by {name}"):
        pass
    provider.shutdown()
    return [*before, name]


def shown(folder: str):
    Path(folder).mkdir(parents=True, exist_ok=True)

    def named(function, name):
        return function.options(**workflow.options(task_id=name))

    first = named(traced, "first").bind(folder, "first")
    return named(traced, "last").bind(folder, "last", named(gate, "gate").bind(folder, first))


def count(folder, name):
    with open(Path(folder, "ran"), "a") as file:
        file.write(f"{name}\n")
