"""Functions by their import path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any


def is_function(found: Any) -> bool:
    """True for what can be called; not for a node of a graph, which has a ``__call__`` to refuse it."""
    return callable(found) and not hasattr(type(found), "__unknown_value__")


def load_function(workflow: str) -> Callable[..., Any]:
    """The function that ``"package.module:function"`` names.

    An error that the module itself raises when it is imported goes through as it is.

    :raises ValueError: when there is no such module or function.
    """
    module_name, _, path = workflow.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise ValueError(
            f"The workflow {workflow!r} can't be imported: there is no module {exc.name!r}."
        ) from exc
    for name in path.split("."):
        if not hasattr(found, name):
            raise ValueError(
                f"The workflow {workflow!r} can't be imported: {module_name!r} has no {path!r}."
            )
        found = getattr(found, name)
    if not is_function(found):
        raise ValueError(f"The workflow {workflow!r} is a {type(found).__name__} and no function.")
    function: Callable[..., Any] = found
    return function


def check_call(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Return if a workflow's function can be called with these keywords. It is not called.

    :raises ValueError: if not, or if it is a Ray remote function.
    """
    if hasattr(function, "bind") and hasattr(function, "remote"):
        raise ValueError(
            f"The workflow {name!r} is a Ray remote function. Give a function that returns "
            "what .bind() of a remote function returns."
        )
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as exc:
        raise ValueError(
            f"The workflow {name!r} can't be called with the arguments {sorted(arguments)}: {exc}."
        ) from exc
