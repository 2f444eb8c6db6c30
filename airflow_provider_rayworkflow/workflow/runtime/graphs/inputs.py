"""How a task's pickled arguments refer to the results that it takes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.authoring.map_result import LoadResult, MapResult
from airflow_provider_rayworkflow.workflow.authoring.map_tasks import Mapped
from airflow_provider_rayworkflow.workflow.authoring.node import Path, part_of
from airflow_provider_rayworkflow.workflow.format.pickling import pickled_by_fields
from airflow_provider_rayworkflow.workflow.model.graph import Arguments
from airflow_provider_rayworkflow.workflow.model.stored_map import StoredMap
from airflow_provider_rayworkflow.workflow.runtime.graphs import functions
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import put

#: ``args``, ``kwargs``, and the exceptions that the author wants retried; None for all.
Call = tuple[list[Any], dict[str, Any], tuple[type[BaseException], ...] | None]

_inputs: ContextVar[list[Any]] = ContextVar("workflow_inputs")
_load: ContextVar[LoadResult | None] = ContextVar("workflow_load_result")


@pickled_by_fields
@dataclass(frozen=True, slots=True)
class Argument:
    """Stands for the value of an input, or a part of it, that is itself an argument of the call."""

    position: int
    path: Path = ()


def nested_input(position: int, path: Path = ()) -> ray.ObjectRef[Any]:
    """An input inside a container: a reference to its value. Called while unpickling."""
    return put(nested_value(position, path))


def nested_value(position: int, path: Path = ()) -> Any:
    """An input inside a container, by its value. Called while unpickling."""
    return part_of(_inputs.get()[position], path)


def map_argument(stored: bytes) -> MapResult[Any]:
    """The result of a map in an argument. Called while unpickling."""
    load = _load.get()
    if load is None:
        raise RuntimeError("The result of a map is read in tasks only.")
    return MapResult(StoredMap.from_bytes(stored), load)


def mapped_function(pickled: bytes) -> Mapped:
    """The function of a map in an argument. Called while unpickling."""
    return Mapped(functions.load(pickled))


def load_call(arguments: Arguments, inputs: list[Any], load: LoadResult | None = None) -> Call:
    """What a function is called with, from what :meth:`Graph.arguments_of` gives.

    :param load: loads a stored result; needed for the results of maps in arguments.
    """
    if isinstance(arguments, tuple):
        scalars, shape = arguments
        return *shape.fill(scalars, inputs), None
    with _unpickling_with(inputs, load):
        args, kwargs, retryable = pickle.loads(arguments)
    args = [_resolved(value, inputs) for value in args]
    return args, {name: _resolved(value, inputs) for name, value in kwargs.items()}, retryable


def _resolved(value: Any, inputs: list[Any]) -> Any:
    return part_of(inputs[value.position], value.path) if isinstance(value, Argument) else value


@contextmanager
def _unpickling_with(inputs: list[Any], load: LoadResult | None) -> Iterator[None]:
    """While arguments are unpickled, these are the inputs, and this loads results."""
    tokens = _inputs.set(inputs), _load.set(load)
    try:
        yield
    finally:
        _inputs.reset(tokens[0])
        _load.reset(tokens[1])
