"""A graph as plain Ray tasks: a continuation outside of a workflow."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.authoring.map_tasks import whole_of
from airflow_provider_rayworkflow.workflow.authoring.node import Call
from airflow_provider_rayworkflow.workflow.model.graph import Arguments
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs import ray_dag
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import in_order, reader
from airflow_provider_rayworkflow.workflow.runtime.graphs.inputs import load_call
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import (
    BoundCall,
    check_graph,
    is_graph,
)

_Done = Mapping[Any, "ray.ObjectRef[Any]"]


def execute_plainly(node: Any) -> Any:
    """Run a graph as plain Ray tasks and return its value.

    :raises TypeError: for anything but a graph of functions.
    """
    check_graph(node)
    last = whole_of(node)
    done: dict[BoundCall, ray.ObjectRef[Any]] = {}
    for call, read, _ in in_order(last, reader(keeps_refs=True)):
        _, rays = ray_options.split(call._bound_options)
        rays.pop("max_calls", None)
        if isinstance(call, Call):
            task = ray.remote(_run).options(**{"name": call._body.__name__, **rays})
            inputs = [done[child] for child in read.children]
            done[call] = task.remote(call._body, read.stored_arguments, *inputs)
        else:
            task = ray.remote(call._body).options(**rays)
            args = _with_results(list(call._bound_args), done)
            done[call] = task.remote(*args, **_with_results(call._bound_kwargs, done))
    return ray.get(done[last])


def _run(body: Callable[..., Any], arguments: Arguments, *inputs: Any) -> Any:
    """Call a function of ``@workflow.task``, with the results that it takes."""
    args, kwargs, _ = load_call(arguments, list(inputs))
    value = body(*args, **kwargs)
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _with_results(value: Any, done: _Done) -> Any:
    """References in the place of nodes in lists, tuples and dicts, in which a graph of Ray's may have them."""
    if isinstance(value, (list, tuple)):
        return type(value)(_with_results(item, done) for item in value)
    if isinstance(value, dict):
        return {key: _with_results(item, done) for key, item in value.items()}
    return done[value] if is_graph(value) and not ray_dag.is_input(value) else value
