"""Nodes: calls of tasks whose results are not known yet. No Ray, and no graph: they only refer to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from airflow_provider_rayworkflow.workflow.authoring.unknown import Unknown

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions

T_co = TypeVar("T_co", covariant=True)

#: The steps from a result to a part of it: ``("item", key)`` or ``("attribute", name)``.
Path = tuple[tuple[str, Any], ...]


class Node(Unknown, Generic[T_co]):
    """The result of a task, or a part of it, before the task has run.

    Give it to other tasks, as an argument or anywhere in one: they get the value. ``node["rows"]``,
    ``node[0]`` and ``node.name`` stand for parts of the value; names that begin with ``_`` do not.
    What needs the value raises a TypeError: operators, calls, ``if``, ``for``, f-strings. ``==`` compares
    which node it is, and ``str(node)`` (also ``"%s" % node``) names it.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Node[Any]:
        return Part(self, ("item", key))

    def __getattr__(self, name: str) -> Node[Any]:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}: its value is not known yet.")
        return Part(self, ("attribute", name))

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be taken apart before it has run. Name its outputs, as in "
            'a, b = f.outputs("a", "b")(…), or take parts of it, as in node[0].'
        )

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is neither true nor false before it has run. Decide in a task: what that "
            "returns may be a graph, too."
        )

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be put into a text before it has run. Make the text in a task that takes it."
        )

    def __copy__(self) -> Node[T_co]:
        return self  # it never changes, and asdict() of a dataclass copies what is in it

    def __deepcopy__(self, memo: Any) -> Node[T_co]:
        return self

    def __reduce__(self) -> Any:
        # Ray pickles the arguments of .bind(), to look for nodes of its own. Else this is a mistake,
        # and told where it is read.
        return _refuse_pickled, (repr(self),)


class Call(Node[T_co]):
    """One call of a task.

    The fields are named as those of Ray's ``FunctionNode``: graphs of both kinds are read in the same way.
    """

    __slots__ = ("_body", "_bound_args", "_bound_kwargs", "_bound_options")

    def __init__(
        self,
        body: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: GivenOptions,
    ) -> None:
        self._body = body
        self._bound_args = args
        self._bound_kwargs = kwargs
        self._bound_options = options

    def __repr__(self) -> str:
        return f"<a call of the task {self._bound_options.name or self._body.__name__!r:.100}>"


class ItemCall(Call[T_co]):
    """One of the calls that a map is made of.

    :ivar item: what tells it from the others, as text.
    :ivar cache_key: what the cache's ``key`` gives for its arguments; None where they tell it.
    """

    __slots__ = ("_cache_key", "_item")

    def __init__(
        self,
        body: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: GivenOptions,
        item: str,
        cache_key: str | None = None,
    ) -> None:
        super().__init__(body, args, kwargs, options)
        self._item = item
        self._cache_key = cache_key


class Part(Node[T_co]):
    """A part of the result of a call.

    :ivar call: the call.
    :ivar path: how the part is found in its result.
    """

    __slots__ = ("_call", "_path")

    def __init__(self, node: Node[Any], step: tuple[str, Any]) -> None:
        # A node is a call, or a part of one.
        within = node._path if isinstance(node, Part) else ()
        whole = node._call if isinstance(node, Part) else cast("Call[Any]", node)
        self._call: Call[Any] = whole
        self._path: Path = (*within, step)

    def __repr__(self) -> str:
        return f"<{shown_path(self._path)} of {self._call!r:.120}>"


def is_node(value: Any) -> bool:
    """True for a node, one of ``.bind()`` too."""
    return isinstance(value, Node) or "_bound_args" in getattr(value, "__dict__", ())


def holds_node(value: Any) -> bool:
    """True if a value is a node, or has one in its containers and attributes."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if is_node(found):
            return True
        if id(found) not in seen and not isinstance(found, _WITHOUT_PARTS):
            seen.add(id(found))
            waiting.extend(_parts(found))
    return False


def _parts(value: Any) -> list[Any]:
    found = [*getattr(value, "__dict__", {}).values()]
    if is_dataclass(value):  # it may have slots
        found += [getattr(value, field.name, None) for field in fields(value)]
    if isinstance(value, Mapping):
        found += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        found += value
    return found


_WITHOUT_PARTS = (str, bytes, int, float, type(None), type, ModuleType)


def shown_path(path: Path) -> str:
    """The steps of a path, as in code."""
    return "".join(f"[{key!r:.50}]" if kind == "item" else f".{key}" for kind, key in path)


def part_of(value: Any, path: Path) -> Any:
    """The part of a value that a path leads to.

    :raises Exception: what the value raises where it has no such part, with a note that names the part.
    """
    try:
        for kind, key in path:
            value = value[key] if kind == "item" else getattr(value, key)
    except Exception as exc:
        exc.add_note(
            f"The task takes the part {shown_path(path)} of the result of another one, which is a "
            f"{type(value).__name__} where that fails."
        )
        raise
    return value


def _refuse_pickled(shown: str) -> NoReturn:
    raise TypeError(
        f"{shown} was stored as a value. Pass it to a task as an argument, and don't use it in the "
        "body of a function."
    )
