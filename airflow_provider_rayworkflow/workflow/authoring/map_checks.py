"""Checks of what a map is given: refused where it is written, with the remedy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.authoring.node import Node, is_node

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction

_REFUSED = {
    "checkpoint": (False, "The result of a map is read from the checkpoints of its items."),
    "when": ("all_success", "Let another task that takes the map's result have the rule."),
    "cleanup_s": (None, "Let another task that takes the map's result clean up."),
}


def check_options(task: TaskFunction[..., Any], what: str) -> None:
    """Return if the options of a task are good for a map.

    :raises ValueError: if not.
    """
    given = task._options.workflow
    for option, (value, remedy) in _REFUSED.items():
        found = given.get(option)
        is_refused = found is False if option == "checkpoint" else found not in (None, value)
        if is_refused:
            raise ValueError(
                f"{task.__name__}.{what} can't have {option}={found!r}. {remedy} Take it away here by "
                f"{task.__name__}.with_options({option}=None)."
            )


def check_reduces(task: Any) -> None:
    """Return if a task can combine values.

    :raises TypeError: if not.
    :raises ValueError: for a cache with a key.
    """
    if not hasattr(task, "_options"):
        raise TypeError(f"reduce takes a @workflow.task, and {task!r:.100} is none.")
    cache = task._options.workflow.get("cache")
    if cache is not None and cache.key is not None:
        raise ValueError(
            f"reduce calls {task.__name__}() with its own results, and the key of its cache is made of "
            f"arguments that are known before: give {task.__name__}.with_options(cache=workflow.Cache(…)) "
            "without a key."
        )
    try:
        inspect.signature(task.fn).bind(None)
    except TypeError as exc:
        raise TypeError(
            f"reduce calls {task.__name__}() with one argument, a list of values: {exc}"
        ) from None


def check_limits(max_concurrency: Any, max_failed: Any, batch_size: Any) -> None:
    """Return if the limits of a map can be used.

    :raises ValueError: if not.
    """
    if max_concurrency is not None and not _is_count(max_concurrency):
        raise ValueError(
            f"max_concurrency must be a whole number from 1 on, or None for no limit, not {max_concurrency!r:.100}."
        )
    if not _is_count(batch_size):
        raise ValueError(f"batch_size must be a whole number from 1 on, not {batch_size!r:.100}.")
    share_of(max_failed)


def share_of(max_failed: Any) -> float | int:
    """How many items may fail: a number, or as a float the share of all.

    :raises ValueError: for anything else.
    """
    if type(max_failed) is int and max_failed >= 0:
        return max_failed
    if isinstance(max_failed, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", max_failed)):
        percent = float(found[1])
        if percent <= 100:
            return percent / 100
    raise ValueError(
        'max_failed must be a whole number from 0 on, or a share of all items from "0%" to "100%", not '
        f"{max_failed!r:.100}."
    )


def allowed(max_failed: int | str, items: int) -> int:
    """How many of so many items may fail; a share is rounded down."""
    share = share_of(max_failed)
    return int(share * items + 1e-9) if isinstance(share, float) else share


def check_items(
    task: TaskFunction[..., Any],
    items: Any,
    key: Callable[[Any], Any] | str | None,
    fixed: Mapping[str, Any],
    *,
    star: bool,
) -> None:
    """Return if there can be a map over these.

    :raises TypeError: if not.
    """
    name = f"{task.__name__}.{'starmap' if star else 'map'}"
    is_function = callable(key) and not isinstance(key, Node)
    if key is not None and not (is_function or (isinstance(key, str) and key)):
        raise TypeError(
            f"key of {name} must be a function of an item, or the name of a field, not {key!r:.100}."
        )
    if not is_node(items):
        check_iterable(items, name)
        if isinstance(items, Mapping) and key is not None:
            raise TypeError(f"{name} over a dict has its keys: take key= away.")
    signature = inspect.signature(task.fn)
    try:
        if star:
            signature.bind_partial(**fixed)
        else:
            signature.bind(None, **fixed)
    except TypeError as exc:
        raise TypeError(
            f"{name} can't call {task.__name__}() with an item and {sorted(fixed)}: {exc}"
        ) from None
    if not star:
        _refuse_own_names(signature, 1, task.__name__, name)


class ItemArguments:
    """Checks what the items of a ``starmap`` are as arguments, those of each length once.

    :param name: of the function, for errors.
    :param fixed: the arguments that all items share.
    """

    def __init__(self, function: Callable[..., Any], name: str, fixed: Iterable[str]) -> None:
        self._signature = inspect.signature(function)
        self._name = name
        self._fixed = dict.fromkeys(fixed)
        self._good_lengths: set[int] = set()

    def check(self, item: Any, key: str) -> None:
        """Return if the function can be called with an item.

        :param key: of the item, for errors.
        :raises TypeError: if not.
        """
        name = f"{self._name}.starmap"
        if not isinstance(item, (tuple, list)):
            raise TypeError(
                f"{name} takes items that are tuples or lists of arguments, and that of {key} is a "
                f"{type(item).__name__}: {item!r:.100}."
            )
        if len(item) in self._good_lengths:
            return
        try:
            self._signature.bind(*item, **self._fixed)
        except TypeError as exc:
            raise TypeError(
                f"{name} can't call {self._name}() with item {key}, {len(item)} arguments, and "
                f"{sorted(self._fixed)}: {exc}"
            ) from None
        _refuse_own_names(self._signature, len(item), self._name, name)
        self._good_lengths.add(len(item))


def _refuse_own_names(signature: inspect.Signature, filled: int, function: str, name: str) -> None:
    """Refuse a function with a parameter that the map would take for its own.

    :param filled: how many of its parameters an item fills: these are never given by name.
    """
    by_name = [
        parameter.name
        for parameter in [*signature.parameters.values()][filled:]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if taken := [found for found in by_name if found in _OWN_NAMES]:
        raise TypeError(
            f"{name} has a {taken[0]}= of its own, so {function}() can't get its parameter {taken[0]!r} "
            "from it. Rename the parameter, or map a function that calls this one."
        )


#: What ``map`` takes itself.
_OWN_NAMES = frozenset({"items", "key", "max_concurrency", "max_failed", "batch_size"})


def check_iterable(items: Any, name: str) -> None:
    """Return if the items have an order, or keys.

    :raises TypeError: if not.
    """
    if isinstance(items, (str, bytes, bytearray, memoryview)):
        raise TypeError(
            f"{name} takes a list or a dict, not a {type(items).__name__}: {items!r:.50}."
        )
    if isinstance(items, (set, frozenset)):
        raise TypeError(f"{name} takes items in an order, and a set has none: give sorted(items).")
    if hasattr(items, "__dataframe__"):  # Python would go through its columns
        raise TypeError(
            f"{name} takes a list of items, and a {type(items).__name__} has rows and columns: give "
            'its rows, as in frame.to_dict("records") or table.to_pylist().'
        )
    if not isinstance(items, Iterable):
        raise TypeError(
            f"{name} takes a list, a dict, or a node whose value is one, not a {type(items).__name__}: "
            f"{items!r:.50}."
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1
