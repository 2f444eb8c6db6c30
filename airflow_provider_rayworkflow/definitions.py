"""From what a DAG's author writes to a Ray DAG: import path or function, and JSON arguments."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

import cloudpickle

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError

Json = dict[str, Any]
Definition = str | Callable[..., Any]


def check_definition(workflow: Definition) -> None:
    """Return if this can name a workflow; nothing is imported.

    :raises RayWorkflowInputError: if not.
    """
    if isinstance(workflow, str):
        module, colon, name = workflow.partition(":")
        if not (colon and _is_dotted_name(module) and _is_dotted_name(name)):
            raise RayWorkflowInputError(
                f"The workflow {workflow!r} is not an import path. Write it as "
                '"package.module:function".'
            )
    elif not callable(workflow):
        raise RayWorkflowInputError(
            f"The workflow must be an import path or a function, not {workflow!r}."
        )


def name_of(workflow: Definition) -> str:
    """What a workflow is called in messages and in its fingerprint."""
    if isinstance(workflow, str):
        return workflow
    function = _unwrapped(workflow)
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def load_function(workflow: Definition) -> Callable[..., Any]:
    """The function that returns the workflow's graph.

    An error that the module itself raises when it is imported goes through as it is.

    :raises RayWorkflowInputError: when there is no such module or function.
    """
    check_definition(workflow)
    if not isinstance(workflow, str):
        return workflow
    module_name, _, path = workflow.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise RayWorkflowInputError(
            f"The workflow {workflow!r} can't be imported: there is no module {exc.name!r}. "
            "Put it into the DAGs folder, or install it where tasks run."
        ) from exc
    for name in path.split("."):
        if not hasattr(found, name):
            raise RayWorkflowInputError(
                f"The workflow {workflow!r} can't be imported: {module_name!r} has no {path!r}."
            )
        found = getattr(found, name)
    if not callable(found):
        raise RayWorkflowInputError(
            f"The workflow {workflow!r} is a {type(found).__name__} and not a function."
        )
    function: Callable[..., Any] = found
    return function


def check_arguments(workflow: Definition, function: Callable[..., Any], arguments: Any) -> Json:
    """The arguments as JSON carries them: tuples become lists.

    :raises RayWorkflowInputError: when they are not JSON, or are not the function's.
    """
    if hasattr(function, "bind") and hasattr(function, "remote"):
        raise RayWorkflowInputError(
            f"The workflow {name_of(workflow)!r} is a Ray remote function. Give a function that "
            "returns what .bind() of a remote function returns."
        )
    if not isinstance(arguments, dict):
        raise RayWorkflowInputError(f"arguments must be a dict, not {arguments!r:.200}.")
    checked: Json = as_json(arguments, "arguments")
    try:
        inspect.signature(function).bind(**checked)
    except TypeError as exc:
        raise RayWorkflowInputError(
            f"The workflow {name_of(workflow)!r} can't be called with the arguments "
            f"{sorted(checked)}: {exc}."
        ) from exc
    return checked


def build_graph(workflow: Definition, function: Callable[..., Any], arguments: Json) -> Any:
    """Call the function and return its Ray DAG. Imports Ray; does not start it.

    What a function of the DAG file refers to in that file is pickled along with it: Airflow gives
    the file's module a name under which nobody else can import it.

    :raises RayWorkflowInputError: when it returns anything else.
    """
    from airflow_provider_rayworkflow.workflow.runtime.dag import check_dag

    module = sys.modules.get(getattr(_unwrapped(function), "__module__", None) or "")
    if module is not None and not _is_importable(module.__name__):
        cloudpickle.register_pickle_by_value(module)
    graph = function(**arguments)
    try:
        check_dag(graph)
    except TypeError as exc:
        raise RayWorkflowInputError(
            f"The workflow {name_of(workflow)!r} returned no graph: {exc}"
        ) from exc
    return graph


def as_json(value: Any, where: str) -> Any:
    """A copy of the value with lists for tuples.

    :raises RayWorkflowInputError: naming the place where it is not JSON.
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RayWorkflowInputError(
                    f"{where} must be JSON, and its key {key!r} is not a string."
                )
        return {key: as_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and value - value != 0:
        raise RayWorkflowInputError(f"{where} must be JSON, which has no {value!r}.")
    if not isinstance(value, (str, int, float, type(None))):
        raise RayWorkflowInputError(
            f"{where} must be JSON, and it is a {type(value).__name__}: {value!r:.200}. "
            "Pass text, numbers, lists or dicts, and make of them what you need in the workflow."
        )
    return value


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _is_importable(module_name: str) -> bool:
    return PathFinder.find_spec(module_name.partition(".")[0]) is not None
