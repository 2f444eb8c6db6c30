"""The functions of one graph, and the fingerprints of their code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction
from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.model.code_parts import root_of
from airflow_provider_rayworkflow.workflow.model.codec import dumps
from airflow_provider_rayworkflow.workflow.model.graph import NamedFunction
from airflow_provider_rayworkflow.workflow.model.ids import default_task_id
from airflow_provider_rayworkflow.workflow.runtime.graphs import functions
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options


class Functions:
    """The functions of one graph.

    :param add_blob: adds bytes to the graph; returns their index.
    :param override: asked first, for objects that are pickled with a function.
    :ivar named: those that a task of a later graph may be made of, by name.
    """

    def __init__(self, add_blob: Callable[[bytes], int], override: Callable[[Any], Any]) -> None:
        self._add_blob = add_blob
        self._override = override
        self._indexes: dict[Any, int] = {}
        self._pickled: dict[Any, bytes] = {}
        self._codes: dict[tuple[Any, bool], str] = {}
        self.named: dict[str, NamedFunction] = {}
        self._met: dict[Any, str | None] = {}  # functions that code refers to, with a version
        self._makes_graphs = False

    def index(self, body: Callable[..., Any]) -> int:
        """The index of the blob that has the function.

        :raises TypeError: when it can't be pickled.
        """
        if body not in self._indexes:
            self._indexes[body] = self._add_blob(self.pickled(body))
        return self._indexes[body]

    def pickled(self, body: Callable[..., Any]) -> bytes:
        """The function as it is stored: :func:`.functions.load` gives it back.

        :raises TypeError: when it can't be pickled.
        """
        if body not in self._pickled:
            try:
                pickled = dumps(body, override=self._override)
            except Exception as exc:
                raise TypeError(
                    f"The function {default_task_id(body)} can't be pickled: {exc}. Create what "
                    "can't be pickled (connections, locks, sessions) inside of the function."
                ) from exc
            functions.dumped(pickled, body)
            self._pickled[body] = pickled
        return self._pickled[body]

    def code_of_task(
        self, body: Any, version: str | None, named: Sequence[Any], also: Sequence[Any] = ()
    ) -> str:
        """The fingerprint of a task's code.

        :param version: what the author gave in place of the code.
        :param named: functions among its arguments, which count in them by their name only.
        :param also: functions that count whatever the version is: that of a task of ours is not the author's.
        """
        if not is_ours(body) and body.__qualname__ and "<" not in body.__qualname__:
            name, code = default_task_id(body), self._code(body, version)
            self.named.setdefault(name, NamedFunction(blob=self.index(body), code=code))
        return self._combined(body, version, [*(named if version is None else ()), *also])

    def exact_code(self, body: Any, version: str | None, named: Sequence[Any]) -> str:
        """As :meth:`code_of_task`, with what variables of the task's package hold: for results of other workflows."""
        return self._combined(body, version, named if version is None else (), exact=True)

    def _combined(
        self, body: Any, version: str | None, others: Sequence[Any], *, exact: bool = False
    ) -> str:
        code = self._code(body, version, exact=exact)
        if not others:
            return code
        home = root_of(body)
        codes = [self._code(one, exact=exact and root_of(one) == home) for one in others]
        return fingerprints.combine(code, *codes)

    def digest(self, body: Any) -> str:
        """``-`` and what tells a function from others of its module and name; ``""`` if that is not known."""
        code = self._code(body).partition("@")[0]
        return f"-{code[:8]}" if code else ""

    def name_met(self) -> None:
        """Note the functions of which tasks may make others: a resume puts them in the place of older ones."""
        packages = {root_of(body) for body in self._indexes} - {_OURS}
        while self._makes_graphs and self._met:
            body, version = self._met.popitem()
            name = default_task_id(body)
            is_known = name in self.named or "<" in body.__qualname__
            if is_known or root_of(body) not in packages:
                continue
            with suppress(TypeError):  # it can't be pickled, and perhaps need not be
                self.named[name] = NamedFunction(
                    blob=self.index(body), code=self._code(body, version)
                )

    def _code(self, body: Any, version: str | None = None, *, exact: bool = False) -> str:
        if version is not None and is_ours(body):
            return fingerprints.of_text(version)
        key = body, exact
        if key not in self._codes:
            self._codes[key] = fingerprints.of_code(body, replace=self._meet, exact=exact)
        return self._codes[key] if version is None else fingerprints.of_text(version)

    def _meet(self, obj: Any) -> Any:
        """Take note of what the code of a task refers to, while that is walked."""
        match obj:
            case CodeType():
                self._makes_graphs |= "bind" in obj.co_names
            case FunctionType():
                self._met.setdefault(obj, None)
            case TaskFunction():
                self._makes_graphs = True
                ours, _ = ray_options.split(obj._options)
                self._met[obj.fn] = ours.get("version")
                return obj.fn
            case RemoteFunction():
                ours, _ = ray_options.split(obj._default_options)
                self._met[obj._function] = ours.get("version")
                return obj._function
        return NotImplemented


def counted_in(body: Any, named: Sequence[Any]) -> list[Any]:
    """The functions and classes among a task's arguments whose code counts in the task's own.

    Those that are arguments do, unless a library has them, and the classes of objects that are of the task's package.
    """
    package = root_of(body)
    found = []
    for other in named:
        if not isinstance(other, fingerprints.InstanceOf):
            if root_of(other) == package or not _is_of_library(other):
                found.append(other)
        elif root_of(other.cls) == package:
            found.append(other.cls)
    return found


def _is_of_library(function: Any) -> bool:
    """True for a function or class of Python, or of an installed package: a changed library is no change."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None) or ""
    is_of_python = root_of(function) in sys.stdlib_module_names
    return is_of_python or not _INSTALLED.isdisjoint(Path(file).parts)


#: Folders of installed packages.
_INSTALLED = {"site-packages", "dist-packages"}


#: Functions of this package are imported where they run: no author's code, and none to put in the place of another.
_OURS = __name__.partition(".")[0]


def is_ours(function: Any) -> bool:
    """True for a function of this package."""
    return root_of(function) == _OURS
