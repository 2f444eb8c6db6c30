"""How deep values of JSON are nested, told without recursion."""

from __future__ import annotations

from typing import Any


def is_nested_deeper(value: Any, limit: int) -> bool:
    """True if there are more than so many lists and dicts in one another; a scalar has depth 0."""
    level = [value]
    for _ in range(limit + 1):
        containers = [item for item in level if isinstance(item, (list, tuple, dict))]
        if not containers:
            return False
        level = [
            item
            for container in containers
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return True
