"""Arguments that can't be pickled: the error names the task and the argument."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

from airflow_provider_rayworkflow.workflow.authoring.maps import OverItems
from airflow_provider_rayworkflow.workflow.model.ids import own_name
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import BoundCall


def told_of(exc: Exception, node: BoundCall, dump: Callable[[Any], Any]) -> Exception:
    """The error to raise for a call whose arguments could not be pickled.

    :param exc: what was raised; given back if it is no refusal of pickle's.
    :param dump: pickles a value.
    """
    if not _is_refusal(exc):
        return exc
    task = ray_options.split(node._bound_options)[0].get("task_id") or own_name(node._body)
    for name, value in _arguments(node).items():
        try:
            dump(value)
        except Exception:
            remedy = (
                "Give a list of what it yields"
                if "generator" in str(exc)
                else "Give plain data, and open or create the rest in the task"
            )
            return TypeError(
                f"The argument {name!r} of task {task!r}, a {type(value).__name__}, can't be stored: {exc}. "
                f"{remedy}."
            )
    return exc


def _is_refusal(exc: Exception) -> bool:
    return isinstance(exc, pickle.PicklingError) or str(exc).startswith("cannot pickle ")


def _arguments(node: BoundCall) -> dict[str, Any]:
    """The arguments by their names, as the author of a call has given them."""
    bound = inspect.signature(node._body).bind(*node._bound_args, **node._bound_kwargs)
    found: dict[str, Any] = dict(bound.arguments)
    if isinstance(node, OverItems):
        fixed: dict[str, Any] = found.pop("fixed", {})
        return found | fixed
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = found.pop(name, ())
            found |= {f"{name}[{number}]": value for number, value in enumerate(values)}
        elif parameter.kind is parameter.VAR_KEYWORD:
            found |= found.pop(name, {})
    return found
