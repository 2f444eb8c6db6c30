"""Maps: one task for each item of a list, a dict, or of what another task returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayworkflow.workflow.authoring import map_tasks
from airflow_provider_rayworkflow.workflow.authoring.limits import with_declared
from airflow_provider_rayworkflow.workflow.authoring.map_checks import (
    check_items,
    check_limits,
    check_options,
    check_reduces,
)
from airflow_provider_rayworkflow.workflow.authoring.map_keys import check_keys
from airflow_provider_rayworkflow.workflow.authoring.map_result import MapResult
from airflow_provider_rayworkflow.workflow.authoring.node import Call, Node, is_node

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction

R = TypeVar("R")

#: How many values one task of a reduction takes.
TREE = 32


class OverItems(Call[R]):
    """A call whose task calls a function for many items."""

    __slots__ = ("_mapped", "_suffix")

    def __init__(
        self,
        body: Callable[..., Any],
        args: tuple[Any, ...],
        mapped: TaskFunction[..., Any],
        suffix: str,
    ) -> None:
        name = map_tasks.name_of(mapped.fn, mapped._options)
        super().__init__(body, args, {}, map_tasks.internal_options(name + suffix, expands=True))
        self._mapped = mapped
        self._suffix = suffix


class MapNode(OverItems[MapResult[R]]):
    """The result of a map, before it has run: a :class:`MapResult`.

    Give it to other tasks, or map over it.
    """

    __slots__ = ()

    def reduce(self, function: TaskFunction[[Any], R], *, tree: int = TREE) -> Node[R]:
        """Combine the values to one, some at a time and in parallel.

        ``function`` takes a list of values, the first of them values of the map and then its own results, and
        combines them to one. It must not matter how they are grouped; their order is kept.

        :param function: a task of one argument. Its tasks are named ``function[level.number]``.
        :param tree: how many values one task takes, at least 2.
        :raises ValueError: for another ``tree``. The task fails where the map gave no values.
        """
        check_reduces(function)
        if type(tree) is not int or tree < 2:
            raise ValueError(f"tree must be a whole number from 2 on, not {tree!r:.100}.")
        name = map_tasks.name_of(function.fn, function._options)
        spec = map_tasks.Reduction(
            function=map_tasks.Mapped(function.fn),
            name=name,
            options=with_declared(function._options, name),
            tree=tree,
        )
        body = map_tasks.expand_reduction
        return OverItems(body, (spec, self), function, ".reduce")


@dataclass(frozen=True, kw_only=True, eq=False)
class MapArguments:
    """What a map was given beside its items; see :meth:`.TaskFunction.map`."""

    key: Callable[[Any], Any] | str | None
    max_concurrency: int | None
    max_failed: int | str
    batch_size: int


def mapped(
    task: TaskFunction[..., R],
    items: Any,
    given: MapArguments,
    fixed: Mapping[str, Any],
    *,
    star: bool,
) -> MapNode[R]:
    """See :meth:`.TaskFunction.map` and :meth:`.TaskFunction.starmap`."""
    what = "starmap" if star else "map"
    check_options(task, what)
    check_limits(given.max_concurrency, given.max_failed, given.batch_size)
    check_items(task, items, given.key, fixed, star=star)
    spec = map_tasks.MapSpec(
        function=map_tasks.Mapped(task.fn),
        name=map_tasks.name_of(task.fn, task._options),
        options=with_declared(task._options, task.__name__),
        star=star,
        key=given.key,
        max_concurrency=given.max_concurrency,
        max_failed=given.max_failed,
        batch_size=given.batch_size,
    )
    if isinstance(items, Mapping):
        items = map_tasks.Pairs(tuple(items.items()))
    elif not (is_node(items) or isinstance(items, Sequence)):
        items = list(items)  # a zip, for example, which is gone when it has been read
    if not (is_node(items) or isinstance(items, MapResult)):
        map_tasks.check_literal(spec, items, fixed)
    return MapNode(map_tasks.expand, (spec, items, dict(fixed)), task, ".map")


def gather(nodes: Iterable[Node[R]] | Mapping[str, Node[R]]) -> Node[MapResult[R]]:
    """The results of several tasks as one, a :class:`MapResult`: read piece by piece, and never held all at once.

    A list of nodes as an argument gives a task all values at once.

    :param nodes: nodes, or a dict of them, whose keys are then those of the result.
    :raises TypeError: for what is no node, and for a set, which has another order in each process. A task with ``checkpoint=False`` can't be gathered: that is told when it runs.
    """
    is_group = isinstance(nodes, Iterable) and not isinstance(nodes, (Node, set, frozenset))
    if not is_group:
        raise TypeError(
            f"gather takes a list of nodes, or a dict of them, not a {type(nodes).__name__}: {nodes!r:.100}. "
            "A single node can be passed as it is, and a set has no order."
        )
    named = nodes.items() if isinstance(nodes, Mapping) else enumerate(nodes)
    keys, calls = [], []
    for key, node in named:
        if not is_node(node):
            raise TypeError(
                f"gather takes nodes, what calls of tasks give, and {node!r:.100} (of {key!r:.100}) is none."
            )
        keys.append(key)
        calls.append(map_tasks.whole_of(node, checkpoint=True))
    check_keys(keys, "gather")
    return map_tasks.gathered("gather", keys, calls, takes_failures=False)
