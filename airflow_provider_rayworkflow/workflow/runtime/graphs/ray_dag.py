"""Ray's own graphs, which ``.bind()`` makes. The only file that knows ``ray.dag``, and all works without it.

``ray.dag`` is imported when a function is bound. So where it is not, no value is a node of Ray's.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

_DAG = "ray.dag"

Json = dict[str, Any]


class MissingInputError(KeyError, ValueError):
    """An ``InputNode`` of the graph stands for an argument that was not passed."""

    def __str__(self) -> str:
        return str(self.args[0])


def call_type() -> type | None:
    """The type of a call of a remote function; None where nothing was bound in this process."""
    return getattr(sys.modules.get(_DAG), "FunctionNode", None)


def is_node(value: Any) -> bool:
    """True for anything that ``.bind()`` returns, and for inputs."""
    return _is_a(value, "DAGNode")


def is_input(value: Any) -> bool:
    """True for an ``InputNode``, and a part of one."""
    return _is_a(value, "InputNode") or _is_a(value, "InputAttributeNode")


def check_node(node: Any) -> None:
    """Return if a node of Ray's can be a workflow.

    :raises TypeError: if not.
    """
    if _is_a(node, "ClassNode") or _is_a(node, "ClassMethodNode"):
        raise TypeError(
            "Currently workflow does not support classes as DAG inputs. "
            "Use remote functions instead of actors."
        )
    if not _is_a(node, "FunctionNode"):
        raise TypeError(f"Unsupported DAG node: {node}. The output must be a function's.")


def input_of(node: Any, args: tuple[Any, ...], kwargs: Json) -> Any:
    """What an input stands for.

    :param args: and ``kwargs``: what the graph is called with.
    :raises MissingInputError: when that was not passed.
    """
    single = len(args) == 1 and not kwargs
    if _is_a(node, "InputNode"):
        if not args and not kwargs:
            raise MissingInputError(
                "The graph has an InputNode, and no argument was passed. Pass it to run(), or "
                "make the graph without an InputNode, by a function that takes arguments."
            )
        return args[0] if single else _all_inputs(args, kwargs)
    key = node._key
    if isinstance(key, int) and key < len(args):
        return args[key]
    if key in kwargs:
        return kwargs[key]
    if single:
        # As in plain Ray, a single argument may also hold the parts itself.
        by_attribute = node._accessor_method == "__getattr__"
        with suppress(AttributeError, IndexError, KeyError, TypeError):
            return getattr(args[0], str(key)) if by_attribute else args[0][key]
    raise MissingInputError(
        f"The graph uses the input {key!r}, which was not passed: there are "
        f"{len(args)} positional arguments and the keywords {list(kwargs)}. Pass it "
        "to run(), or make the graph without an InputNode, by a function that takes arguments."
    )


def _all_inputs(args: tuple[Any, ...], kwargs: Json) -> Any:
    from ray.dag.input_node import DAGInputData

    return DAGInputData(*args, **kwargs)  # type: ignore[no-untyped-call]


def _is_a(value: Any, name: str) -> bool:
    kind = getattr(sys.modules.get(_DAG), name, None)
    return kind is not None and isinstance(value, kind)
