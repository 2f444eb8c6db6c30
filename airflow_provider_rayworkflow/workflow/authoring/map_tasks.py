"""The tasks of our own that a map is made of.

A map is a task ``f.map`` that returns a graph, which is committed once: the calls of ``f``, one for each item,
and behind them those that gather their results, without loading any. All of them have names made of the items'
keys; so a list that has changed finds the checkpoints of the items that it still has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from airflow_provider_rayworkflow.workflow.authoring.map_checks import (
    ItemArguments,
    allowed,
    check_iterable,
)
from airflow_provider_rayworkflow.workflow.authoring.map_keys import check_keys, stored_key, text
from airflow_provider_rayworkflow.workflow.authoring.map_result import MapResult
from airflow_provider_rayworkflow.workflow.authoring.node import (
    Call,
    ItemCall,
    Node,
    Part,
    holds_node,
    is_node,
)
from airflow_provider_rayworkflow.workflow.authoring.option_checks import TASK_ID
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.model.cache import Cache
from airflow_provider_rayworkflow.workflow.model.ids import own_name
from airflow_provider_rayworkflow.workflow.model.map_rules import MapRules
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.model.stored_map import PIECE_ITEMS, Key, StoredMap

# Larger values of another map are not repeated in the graph: the tasks load them.
_MAX_REPEATED_BYTES = 1_000
_MAX_SCALAR_TEXT = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """The function of a map's items, as an argument: it is stored as the functions of tasks are."""

    function: Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The items of a dict as an argument: their order counts."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSpec:
    """A map, but for its items and the arguments that all of them share."""

    function: Mapped
    name: str
    options: GivenOptions
    star: bool
    key: Callable[[Any], Any] | str | None
    max_concurrency: int | None
    max_failed: int | str
    batch_size: int

    @property
    def cache_key(self) -> Cache | None:
        """The items' cache, where it has a key."""
        cache: Cache | None = self.options.workflow.get("cache")
        return cache if cache is not None and cache.key is not None else None

    @property
    def decisive(self) -> tuple[Any, ...]:
        """What decides which items there are and what they give: all that counts as an argument of the map."""
        return self.function, self.name, _decisive(self.options), self.star, self.key

    @property
    def indecisive(self) -> tuple[Any, ...]:
        """What decides how the items run."""
        limits = (self.max_concurrency, self.max_failed, self.batch_size)
        return _indecisive(self.options), limits


class Item(NamedTuple):
    """An item of a map.

    :ivar value: what the function is called with: the item, or a node for it.
    :ivar known: the item itself, where that is loaded.
    """

    key: Any
    value: Any
    known: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """A reduction, but for its values."""

    function: Mapped
    name: str
    options: GivenOptions
    tree: int

    @property
    def decisive(self) -> tuple[Any, ...]:
        """As that of a map."""
        return self.function, self.name, _decisive(self.options), self.tree

    @property
    def indecisive(self) -> tuple[Any, ...]:
        """As that of a map."""
        return (_indecisive(self.options),)


_DECISIVE = ("version", "catch_exceptions")


def _decisive(options: GivenOptions) -> tuple[Any, ...]:
    return tuple(options.workflow.get(name) for name in _DECISIVE)


def _indecisive(options: GivenOptions) -> tuple[Any, ...]:
    others = {name: value for name, value in options.workflow.items() if name not in _DECISIVE}
    return others, dict(options.ray)


def name_of(function: Callable[..., Any], options: GivenOptions) -> str:
    """The name of a task, without a number."""
    return options.name or own_name(function)


def internal_options(name: str, **others: Any) -> GivenOptions:
    """The options of a task of ours: its code is that of this package, and no reason to run it again."""
    return GivenOptions(workflow={TASK_ID: name, "version": "1", "checkpoint": True, **others})


# ---- what runs in workers


def expand(spec: MapSpec, items: Any, fixed: Mapping[str, Any]) -> Node[Any]:
    """The graph of a map."""
    name = f"{spec.name}.map"
    shared = _shared(name, fixed)
    found = list(_items(spec, items, name))
    keys = [item.key for item in found]
    check_keys(keys, name)
    _check_arguments(spec, found, fixed)
    options = _item_options(spec, len(found))
    calls: list[Node[Any]] = [
        ItemCall(
            spec.function.function,
            _arguments(spec, item.value),
            shared,
            options,
            text(item.key),
            _cache_key_of(spec, item, fixed, name),
        )
        for item in found
    ]
    return gathered(name, keys, calls, takes_failures=allowed(spec.max_failed, len(found)) > 0)


def expand_reduction(spec: Reduction, values: MapResult[Any]) -> Node[Any]:
    """The graph of a reduction."""
    if not len(values):
        raise ValueError(f"{spec.name}.reduce has nothing to reduce: the map gave no values.")
    whole: Node[Any] = ItemCall(
        hold, (values,), {}, internal_options(f"{spec.name}.reduce"), "values"
    )
    options = GivenOptions(
        workflow={**spec.options.workflow, TASK_ID: spec.name}, ray=spec.options.ray
    )

    def reduced(values: Any, length: int, depth: int) -> list[Node[Any]]:
        starts = range(0, length, spec.tree)
        return [
            ItemCall(
                spec.function.function,
                (values[start : start + spec.tree],),
                {},
                options,
                f"{depth}.{number}",
            )
            for number, start in enumerate(starts)
        ]

    level, depth = reduced(whole, len(values), 0), 0
    while len(level) > 1:
        depth += 1
        level = reduced(level, len(level), depth)
    return level[0]


def gather_items(keys: Sequence[Key], *results: Result) -> StoredMap:
    """A piece of a map's result, or a small one as a whole."""
    return StoredMap.of_items(keys, results)


def gather_pieces(*pieces: Result) -> StoredMap:
    """The result of a large map."""
    return StoredMap.of_pieces(pieces)


def hold(value: Any) -> Any:
    """A value that many tasks take, or a part of one: stored once."""
    return value


# ---- how the graph is made


def whole_of(node: Any, *, checkpoint: bool | None = None) -> Any:
    """The call that gives what a node stands for.

    :param checkpoint: of a part of a result, which is a task of its own then.
    """
    if not isinstance(node, Part):
        return node
    return Call(hold, (node,), {}, internal_options("part", checkpoint=checkpoint))


def check_literal(spec: MapSpec, items: Any, fixed: Mapping[str, Any]) -> None:
    """Return if the items that are given can be mapped; what nodes give is seen when it is known.

    Keys that are made of items are then, too, where there is a node in any of these.

    :raises TypeError: and ``ValueError``, with the item, if not.
    """
    name = f"{spec.name}.map"
    if isinstance(items, Pairs):
        is_known = not holds_node([key for key, _ in items.pairs])
    else:
        is_known = spec.key is None or not holds_node(items)
    found = list(_items(spec if is_known else replace(spec, key=None), items, name))
    if is_known:
        check_keys([item.key for item in found], name)
    _check_arguments(spec, [item for item in found if not is_node(item.value)], fixed)


def _check_arguments(spec: MapSpec, items: Sequence[Item], fixed: Mapping[str, Any]) -> None:
    if spec.star:
        arguments = ItemArguments(spec.function.function, spec.name, fixed)
        for item in items:
            arguments.check(item.value, text(item.key))


def gathered(
    name: str, keys: Sequence[Any], calls: Sequence[Any], *, takes_failures: bool
) -> Node[Any]:
    """What gives the results of calls as one.

    :param keys: checked: texts of them are the same in every process.
    :param takes_failures: also where some of the calls have failed.
    """
    rules: dict[str, Any] = {"gathers": True}
    options = internal_options(name, **rules)
    of_items = internal_options(name, when="all_done", **rules) if takes_failures else options
    stored = [stored_key(key) for key in keys]
    if len(calls) <= PIECE_ITEMS:
        return ItemCall(gather_items, (stored, *calls), {}, of_items, "result")
    pieces: list[Node[Any]] = [
        ItemCall(
            gather_items,
            (stored[start : start + PIECE_ITEMS], *calls[start : start + PIECE_ITEMS]),
            {},
            of_items,
            f"piece {number}",
        )
        for number, start in enumerate(range(0, len(calls), PIECE_ITEMS))
    ]
    return ItemCall(gather_pieces, tuple(pieces), {}, options, "result")


def _shared(name: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that all items share: what is no scalar stands in the graph once."""
    options = internal_options(name)
    return {
        argument: value
        if _is_scalar(value)
        else ItemCall(hold, (value,), {}, options, f"{argument}=")
        for argument, value in fixed.items()
    }


def _is_scalar(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _MAX_SCALAR_TEXT
    return value is None or type(value) in (bool, int, float)


def _items(spec: MapSpec, items: Any, name: str) -> Iterator[Item]:
    if isinstance(items, MapResult):
        yield from _items_of_map(spec, items, name)
    elif isinstance(items, (Pairs, Mapping)):
        if spec.key is not None:
            raise TypeError(f"{name} over a dict has its keys: take key= away.")
        pairs = items.pairs if isinstance(items, Pairs) else items.items()
        yield from (Item(key, value, value) for key, value in pairs)
    else:
        check_iterable(items, name)
        for position, value in enumerate(items):
            key = position if spec.key is None else _key_of(spec.key, value, position, name)
            yield Item(key, value, value)


def _items_of_map(spec: MapSpec, items: MapResult[Any], name: str) -> Iterator[Item]:
    """The values of another map; large ones stay where they are."""
    whole: Node[Any] = ItemCall(hold, (items,), {}, internal_options(name), "items")
    for position, (key, result) in enumerate(items.results()):
        is_small = result.inline is not None and len(result.inline) <= _MAX_REPEATED_BYTES
        is_loaded = is_small or spec.star or spec.key is not None or spec.cache_key is not None
        value = items[position] if is_loaded else None
        if spec.key is not None:
            key = _key_of(spec.key, value, key, name)
        yield Item(key, value if is_small or spec.star else whole[position], value)


def _cache_key_of(spec: MapSpec, item: Item, fixed: Mapping[str, Any], name: str) -> str | None:
    """What the cache's key gives for an item's arguments: they are known now, and in the graph they may not be."""
    if spec.cache_key is None:
        return None
    try:
        task = f"{spec.name}[{text(item.key)}]"
        return spec.cache_key.key_of(task, _arguments(spec, item.known), fixed)
    except Exception as exc:
        exc.add_note(f"{name} asked for the cache key of item {text(item.key)}.")
        raise


def _key_of(key: Callable[[Any], Any] | str, value: Any, position: Any, name: str) -> Any:
    try:
        if not isinstance(key, str):
            return key(value)
        return value[key] if isinstance(value, Mapping) else getattr(value, key)
    except Exception as exc:
        exc.add_note(f"{name} asked for the key of item {position!r:.100}, {value!r:.100}.")
        raise


def _arguments(spec: MapSpec, value: Any) -> tuple[Any, ...]:
    """What the function is called with for an item."""
    return tuple(value) if spec.star else (value,)


def _item_options(spec: MapSpec, items: int) -> GivenOptions:
    rules = MapRules(
        items=items,
        max_failed=allowed(spec.max_failed, items),
        max_concurrency=spec.max_concurrency,
        batch_size=spec.batch_size,
    )
    workflow = {**spec.options.workflow, TASK_ID: spec.name, "checkpoint": True, "map_rules": rules}
    return GivenOptions(workflow=workflow, ray=spec.options.ray)
