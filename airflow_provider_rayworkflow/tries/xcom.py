"""What Airflow can keep in an XCom: less than what is JSON for Python."""

from __future__ import annotations

from typing import Any

# Airflow's processes pass values on as MessagePack, and its API server takes no deeper ones.
_LARGEST_INT, _SMALLEST_INT = 2**64 - 1, -(2**63)
_MAX_DEPTH = 150
# Airflow takes a dict with these keys for something of its own.
_RESERVED = (frozenset({"__classname__"}), frozenset({"__id__"}), frozenset({"__type", "__var"}))


def why_not_in_xcom(value: Any) -> str:
    """Why a JSON value can't be kept in an XCom, ``""`` if it can."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        problem = _problem_of(item) if depth <= _MAX_DEPTH else "it is nested too deep"
        if problem:
            return f"Airflow can't keep the output in an XCom: {problem}"
        if isinstance(item, dict):
            pending += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            pending += [(part, depth + 1) for part in item]
    return ""


def _problem_of(item: Any) -> str:
    if isinstance(item, str):
        if "\0" in item:
            return f"no database keeps the NUL character of {item!r:.100}"
        return "" if item.isascii() or _is_unicode(item) else f"{item!a:.100} is no Unicode text"
    if isinstance(item, int) and not _SMALLEST_INT <= item <= _LARGEST_INT:
        return f"a number of {item.bit_length()} bits is too large"
    if isinstance(item, dict):
        for keys in _RESERVED:
            if keys <= item.keys():
                return f"a dict with {' and '.join(map(repr, sorted(keys)))} is one of its own"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
