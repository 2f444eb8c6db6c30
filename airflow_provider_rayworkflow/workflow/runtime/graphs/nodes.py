"""What can be the graph of a workflow, and what is told of anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow.authoring.map_result import MapResult
from airflow_provider_rayworkflow.workflow.authoring.node import Node
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction
from airflow_provider_rayworkflow.workflow.runtime.graphs import ray_dag


class BoundCall(Protocol):
    """A call of a task: :class:`Call`, or Ray's ``FunctionNode``."""

    @property
    def _body(self) -> Callable[..., Any]: ...
    @property
    def _bound_args(self) -> tuple[Any, ...]: ...
    @property
    def _bound_kwargs(self) -> dict[str, Any]: ...
    @property
    def _bound_options(self) -> Mapping[str, Any] | GivenOptions: ...


def is_graph(value: Any) -> bool:
    """True for a node of any kind."""
    return isinstance(value, Node) or ray_dag.is_node(value)


def check_graph(value: Any) -> None:
    """Return if the value can be a workflow or a continuation.

    :raises TypeError: if not.
    """
    if isinstance(value, Node):
        return
    if not ray_dag.is_node(value):
        raise TypeError(
            f"Input should be a DAG. {value!r:.200} is a {type(value).__name__}; "
            f"{_remedy_for(value)}"
        )
    ray_dag.check_node(value)


def refuse_nodes(obj: Any) -> Any:
    """Keep a node from being stored as a value: what is in a container would never run.

    So the result of a map: where one is, its values must stay.

    :raises TypeError: for these.
    """
    if isinstance(obj, MapResult):
        raise TypeError(
            "it has the result of a map in it, whose values are read from the storage. Return that as it is, "
            "or list(result)"
        )
    if is_graph(obj):
        raise TypeError(
            f"it has a node in it, what a call of a task gave ({obj!s:.100}), and only a node that is "
            "returned itself is run. Give the nodes to one more task, and return what that gives"
        )
    return NotImplemented


def refuse_nodes_in_function(obj: Any) -> Any:
    """Keep a node from being stored with the code of a function that uses it: there, it has no value.

    So the result of a map of another workflow.

    :raises TypeError: for these.
    """
    if isinstance(obj, MapResult):
        obj.check_own()
    if is_graph(obj):
        raise TypeError(
            f"it uses {obj!s:.100}, which has no value where the function runs. Pass it to the task "
            "as an argument, and use that"
        )
    return NotImplemented


def _remedy_for(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return (
            "give its nodes to one more task that returns what you need, and pass what calling (or, of "
            "Ray remote functions, .bind()) gives."
        )
    if isinstance(value, ray.ObjectRef):
        return "the task runs already: use .bind() in place of .remote()."
    if isinstance(value, TaskFunction):
        return "call it, and pass what that gives."
    if isinstance(value, RemoteFunction):
        return "pass what its .bind() returns."
    if inspect.isawaitable(value) or inspect.isgenerator(value):
        return (
            "the function that makes the graph must be a plain one, neither async nor a generator."
        )
    return "pass what a call of a @workflow.task gives, or .bind() of a Ray remote function."
