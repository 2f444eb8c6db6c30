"""Named outputs: each is a task of its own that takes its part of the result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.authoring.node import Call, Node
from airflow_provider_rayworkflow.workflow.authoring.option_checks import TASK_ID
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction


def named_outputs(
    task: TaskFunction[..., Any], names: tuple[str, ...]
) -> Callable[..., tuple[Node[Any], ...]]:
    """See :meth:`.TaskFunction.outputs`."""
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong or not names or len(set(names)) < len(names):
        raise ValueError(
            f"The outputs of {task.__name__} must be different names, and at least one, not "
            f"{list(names)!r:.200}."
        )

    def call(*args: Any, **kwargs: Any) -> tuple[Node[Any], ...]:
        whole = task(*args, **kwargs)
        base = task._options.name or task.__name__
        return tuple(
            Call(output_of, (whole, names, name), {}, _options(f"{base}.{name}")) for name in names
        )

    call.__signature__ = inspect.signature(task.fn)  # type: ignore[attr-defined]
    return call


def output_of(result: Any, names: tuple[str, ...], name: str) -> Any:
    """One of the outputs of a task.

    :param result: of the task.
    :param names: of all outputs.
    """
    if isinstance(result, Mapping) and name in result:
        return result[name]
    is_row = isinstance(result, (tuple, list)) and not hasattr(result, "_fields")
    if is_row and len(result) == len(names):
        return result[names.index(name)]
    if not (is_row or isinstance(result, Mapping)) and hasattr(result, name):
        return getattr(result, name)
    shown = f" of {len(result)}" if is_row else ""
    raise ValueError(
        f"The result has no output {name!r}: it is a {type(result).__name__}{shown}. Return a dict "
        f"with the keys {list(names)}, or a tuple of {len(names)} values."
    )


def _options(name: str) -> GivenOptions:
    return GivenOptions(workflow={TASK_ID: name, "version": "1"})
