"""How deep values are nested, found out without recursion."""

from __future__ import annotations

from typing import Any


def is_nested_deeper(value: Any, levels: int) -> bool:
    """True if dicts, lists and tuples lie in one another more than so many levels deep."""
    level = [value]
    for _ in range(levels + 1):
        containers = [one for one in level if isinstance(one, (dict, list, tuple))]
        if not containers:
            return False
        level = [
            inner
            for one in containers
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return True
