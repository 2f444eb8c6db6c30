"""A graph as plain Ray tasks: a continuation outside of a workflow."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.authoring.node import Call, Node, Part, part_of
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs import ray_dag
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import in_order, reader
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import (
    BoundCall,
    check_graph,
    whole_of,
)


def execute_plainly(node: Any) -> Any:
    """Run a graph as plain Ray tasks and return its value.

    :raises TypeError: for anything but a graph of functions.
    """
    check_graph(node)
    last = whole_of(node)
    done: dict[BoundCall, ray.ObjectRef[Any]] = {}
    for call, _, _ in in_order(last, reader(keeps_refs=True)):
        resolve = _Resolve(done, gives_values=isinstance(call, Call))
        args = [resolve.argument(value) for value in call._bound_args]
        kwargs = {name: resolve.argument(value) for name, value in call._bound_kwargs.items()}
        _, rays = ray_options.split(call._bound_options)
        rays.pop("max_calls", None)
        done[call] = ray.remote(_plain(call._body)).options(**rays).remote(*args, **kwargs)
    return ray.get(done[last])


def _plain(body: Callable[..., Any]) -> Callable[..., Any]:
    """A function as Ray takes it: none that is ``async``."""
    if not inspect.iscoroutinefunction(body):
        return body

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(body(*args, **kwargs))

    return run


class _Resolve:
    """Puts results in the place of nodes.

    :param gives_values: nodes inside containers become values, and not references.
    """

    def __init__(self, done: dict[BoundCall, ray.ObjectRef[Any]], *, gives_values: bool) -> None:
        self._done = done
        self._gives_values = gives_values

    def argument(self, value: Any) -> Any:
        """An argument of a call; Ray replaces a reference by its value."""
        if isinstance(value, Part) or not self._is_node(value):
            return self._within(value)
        return self._done[value]

    def _within(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._within(item) for item in value)
        if isinstance(value, dict):
            return {key: self._within(item) for key, item in value.items()}
        if not self._is_node(value):
            return value
        call = value._call if isinstance(value, Part) else value
        reference = self._done[call]
        if isinstance(value, Part):
            return part_of(ray.get(reference), value._path)
        return ray.get(reference) if self._gives_values else reference

    def _is_node(self, value: Any) -> bool:
        return isinstance(value, Node) or ray_dag.is_node(value)
