"""How a task's pickled arguments refer to the results that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.pickling import pickled_by_fields
from airflow_provider_rayworkflow.workflow.runtime.refs import put

_inputs: ContextVar[list[Any]] = ContextVar("workflow_inputs")


@pickled_by_fields
@dataclass(frozen=True, slots=True)
class Argument:
    """Stands for the value of an input that is itself an argument of the call."""

    position: int


def nested_input(position: int) -> ray.ObjectRef[Any]:
    """An input inside a container: a reference to its value. Called while unpickling."""
    return put(_inputs.get()[position])


@contextmanager
def unpickling_with(inputs: list[Any]) -> Iterator[None]:
    """While arguments are unpickled, these are the inputs."""
    token = _inputs.set(inputs)
    try:
        yield
    finally:
        _inputs.reset(token)
