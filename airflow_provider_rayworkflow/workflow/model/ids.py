"""Workflow ids and task ids: what is allowed, and how they are made unique."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

#: Long enough for a uuid with a time stamp or an Airflow-made id, short enough for every store.
MAX_WORKFLOW_ID_LENGTH = 255


def check_workflow_id(workflow_id: Any) -> str:
    """Return the id if it may name a workflow.

    :raises TypeError: when it is not a string.
    :raises ValueError: when it is empty, longer than :data:`MAX_WORKFLOW_ID_LENGTH`, contains a
        control character, or could be read as a path that leaves its folder.
    """
    if not isinstance(workflow_id, str):
        raise TypeError(
            f"workflow_id has to be a string type. {workflow_id!r} is of type "
            f"{type(workflow_id).__name__}."
        )
    problem = _problem(workflow_id)
    if problem:
        raise ValueError(
            f"The workflow id {_shortened(workflow_id)} {problem}. Use 1 to "
            f"{MAX_WORKFLOW_ID_LENGTH} printable characters, without '.' or '..' between slashes."
        )
    return workflow_id


def _problem(workflow_id: str) -> str:
    if not workflow_id:
        return "is empty"
    if len(workflow_id) > MAX_WORKFLOW_ID_LENGTH:
        return f"has {len(workflow_id)} characters"
    bad = next((c for c in workflow_id if unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        return f"contains the control character {bad!r}"
    if any(part in (".", "..") for part in re.split(r"[/\\]", workflow_id)):
        return "contains a relative path"
    return ""


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}..."


def default_task_id(function: Callable[..., Any]) -> str:
    """The id of a task whose author gave none: ``module.qualname`` in plain ASCII.

    ``<locals>`` becomes ``locals``, as in Ray Workflows. Of a function in an Airflow DAG file, the
    file's name: the module name that Airflow makes up changes with the place of the file, and the
    id must not, or committed tasks would not be found again.
    """
    name = getattr(function, "__qualname__", None) or "__anonymous_func__"
    return f"{stable_module_name(function)}.{_slug(name)}"


def own_name(function: Callable[..., Any]) -> str:
    """The name of a function itself in plain ASCII; of one without a name ``function``."""
    return _slug(function.__name__) or "function"


def stable_module_name(value: Any) -> str:
    """The module of a function or class, or the name of a module, without what Airflow makes up."""
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return _DAG_FILE_PREFIX.sub("", module or "__anonymous_module__")


_DAG_FILE_PREFIX = re.compile("^unusual_prefix_[0-9a-f]{40}_")


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]", "", plain)


class TaskIds:
    """Gives each task of one workflow an id of its own.

    The first task that asks for a name gets it, the following get ``name_1``, ``name_2``, … in
    the order in which they ask; a name that the author wrote is never taken by a numbered one.
    Memory grows with the number of distinct names, not of tasks.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._avoided: Collection[str] = ()

    def copy(self) -> TaskIds:
        """One that goes on from here, apart from this one."""
        other = TaskIds()
        other._last, other._avoided = dict(self._last), self._avoided
        return other

    def reserve(self, names: set[str]) -> None:
        """Keep these names free for the tasks that will ask for them by name."""
        for name in names:
            self._last[name] = self._last_of(name)

    def allocate(self, name: str) -> str:
        """Return ``name``, or ``name`` with the next free number."""
        number = self._last_of(name) + 1
        while self._is_taken(name, number):
            number += 1
        self._last[name] = number
        return _numbered(name, number)

    def observe(self, task_id: str, name: str) -> None:
        """Take note of an id that an earlier run gave to a task that asked for ``name``."""
        number = _number(task_id[len(name) + 1 :])
        self._last[name] = max(self._last.get(name, -1), number)

    def avoid(self, task_ids: Collection[str]) -> None:
        """Never give these ids from now on."""
        self._avoided = task_ids

    def _is_taken(self, name: str, number: int) -> bool:
        task_id = _numbered(name, number)
        return task_id in self._avoided or (number > 0 and task_id in self._last)

    def _last_of(self, name: str) -> int:
        if name in self._last:
            return self._last[name]
        base, _, suffix = name.rpartition("_")
        # Perhaps a task that asked for ``base`` was given this name as its numbered one.
        return 0 if 0 < _number(suffix) <= self._last.get(base, -1) else -1


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number}"


def _number(suffix: str) -> int:
    """The number that :class:`TaskIds` put behind a name; 0 if it did not put this there."""
    return int(suffix) if re.fullmatch(r"[1-9][0-9]{0,17}", suffix) else 0
