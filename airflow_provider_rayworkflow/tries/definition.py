"""From what a DAG's author writes to a Ray DAG: import path or function, and JSON arguments."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import cloudpickle

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.tries.identity import fingerprint
from airflow_provider_rayworkflow.workflow import checks
from airflow_provider_rayworkflow.workflow.import_path import check_call, is_function, load_function
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.model.graph import Graph

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowDefinition:
    """A function that returns a workflow's graph, and the arguments to call it with.

    :ivar name: the import path, or the name of a function of the DAG file.
    :ivar function: None where it is to be imported elsewhere.
    :ivar inputs: a fingerprint of what it is called with; None: made of name and arguments.
    """

    name: str
    function: Callable[..., Any] | None
    arguments: Json
    inputs: str | None = None

    @classmethod
    def load(
        cls, workflow: str | Callable[..., Any], arguments: Any, *, is_remote: bool = False
    ) -> WorkflowDefinition:
        """Find the function and check that it can be called. It is not called.

        An error that the module itself raises when it is imported goes through as it is.

        :param workflow: ``"package.module:function"``, or the function.
        :param arguments: keywords for the function; JSON, or None.
        :param is_remote: an import path is looked up on the cluster, not here.
        :raises RayWorkflowInputError: when one of them can't be used.
        """
        check_workflow(workflow)
        checked = _check_dict(arguments, "arguments")
        if isinstance(workflow, str):
            if is_remote:
                return cls(name=workflow, function=None, arguments=checked)
            name, function = workflow, _load_function(workflow)
        else:
            name, function = _name_of(workflow), workflow
        try:
            check_call(name, function, checked)
        except ValueError as exc:
            raise RayWorkflowInputError(str(exc)) from exc
        return cls(name=name, function=function, arguments=checked)

    @classmethod
    def of_call(
        cls, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> WorkflowDefinition:
        """The call of a function, with arguments of any kind. It is not called.

        :raises RayWorkflowInputError: when it can't be called so.
        """
        name = _name_of(function)
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as exc:
            raise RayWorkflowInputError(f"The workflow {name!r} can't be called: {exc}.") from exc
        return cls(name=name, function=functools.partial(function, *args, **kwargs), arguments={})

    @property
    def fingerprint(self) -> str:
        """The same for the same name and arguments; of a mapped task: for the same item.

        ``""`` where that can't be told.
        """
        return fingerprint(self.name, self.arguments) if self.inputs is None else self.inputs

    def build_graph(self) -> Any:
        """Call the function and return its Ray DAG. Imports Ray; does not start it.

        What a function of the DAG file refers to in that file is pickled along with it: Airflow
        gives the file's module a name under which no other code can import it.

        :raises RayWorkflowInputError: when it returns anything else.
        """
        from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import check_graph

        if self.function is None:
            raise RayWorkflowInputError(f"The workflow {self.name!r} is to be built elsewhere.")
        module = sys.modules.get(getattr(_unwrapped(self.function), "__module__", None) or "")
        if module is not None and not _is_importable(module.__name__):
            cloudpickle.register_pickle_by_value(module)
        with _keeping_sigterm_handler():
            graph = self.function(**self.arguments)
        try:
            check_graph(graph)
        except TypeError as exc:
            raise RayWorkflowInputError(
                f"The workflow {self.name!r} returned no graph: {exc}"
            ) from exc
        return graph

    def encode(self) -> Graph:
        """The same as data. Imports Ray; does not start it.

        :raises RayWorkflowInputError: when the function returns anything else, or a graph that
            can't be a workflow.
        """
        from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph

        graph = self.build_graph()
        try:
            return encode_graph(graph)
        except (TypeError, ValueError) as exc:
            raise RayWorkflowInputError(f"The workflow {self.name!r} can't be run: {exc}") from exc


@contextmanager
def _keeping_sigterm_handler() -> Iterator[None]:
    """Undo what Ray does to SIGTERM when an author's function starts it: Airflow calls ``on_kill`` by that signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def check_workflow(workflow: Any) -> None:
    """Return if this can name a workflow; nothing is imported.

    :raises RayWorkflowInputError: if not.
    """
    if isinstance(workflow, str):
        module, colon, name = workflow.partition(":")
        if not (colon and _is_dotted_name(module) and _is_dotted_name(name)):
            raise RayWorkflowInputError(
                f"The workflow {workflow!r} is not an import path. Write it as "
                '"package.module:function".'
            )
    elif not is_function(workflow):
        raise RayWorkflowInputError(
            f"The workflow must be an import path or a function, not {workflow!r:.200}."
        )


def check_id(workflow_id: Any) -> str:
    """Return the id if it may name a workflow.

    :raises RayWorkflowInputError: if not.
    """
    try:
        return check_workflow_id(workflow_id)
    except (TypeError, ValueError) as exc:
        raise RayWorkflowInputError(str(exc)) from exc


def check_metadata(metadata: Any) -> Json:
    """A copy of the author's metadata.

    :raises RayWorkflowInputError: when it is not JSON, too large, or has the key that is ours.
    """
    checked = _check_dict(metadata, "metadata")
    if ORIGIN_KEY in checked:
        raise RayWorkflowInputError(
            f"metadata may not have the key {ORIGIN_KEY!r}: the task instance is kept there."
        )
    try:
        return checks.check_metadata(checked)
    except ValueError as exc:
        raise RayWorkflowInputError(str(exc)) from exc


def check_environment(runtime_env: Any) -> Json:
    """A runtime environment, ``{}`` for None; Ray checks what is in it, but for its variables.

    :raises RayWorkflowInputError: when it is no dict, or its ``env_vars`` are no texts. The message has
        no value of theirs, as Ray's would.
    """
    if not isinstance(runtime_env, (dict, type(None))):
        # Not what it is: variables in it may be secrets.
        raise RayWorkflowInputError(
            f"runtime_env must be a dict, not a {type(runtime_env).__name__}."
        )
    variables = (runtime_env or {}).get("env_vars") or {}
    if not isinstance(variables, dict):
        raise RayWorkflowInputError("runtime_env['env_vars'] must be a dict.")
    for name, value in variables.items():
        if not isinstance(value, str):
            raise RayWorkflowInputError(
                f"runtime_env['env_vars'][{name!r:.200}] must be a text, not of type "
                f"{type(value).__name__}."
            )
    return runtime_env or {}


def _load_function(workflow: str) -> Callable[..., Any]:
    try:
        return load_function(workflow)
    except ValueError as exc:
        raise RayWorkflowInputError(
            f"{exc} Put it into the DAGs folder, or install it where tasks run."
        ) from exc


def _check_dict(value: Any, name: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RayWorkflowInputError(f"{name} must be a dict, not {value!r:.200}.")
    try:
        checked: Json = _as_json(value, name)
    except RecursionError as exc:
        raise RayWorkflowInputError(f"{name} is nested too deep to be JSON.") from exc
    return checked


def _as_json(value: Any, where: str) -> Any:
    """A copy of the value, with lists for tuples as JSON has no other sequence."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RayWorkflowInputError(
                    f"{where} must be JSON, and its key {key!r:.200} is not a string."
                )
        return {key: _as_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    # Airflow gives what mapped tasks returned as a sequence of its own kind.
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_as_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and value - value != 0:
        raise RayWorkflowInputError(f"{where} must be JSON, which has no {value!r}.")
    if not isinstance(value, (str, int, float, type(None))):
        raise RayWorkflowInputError(
            f"{where} must be JSON, and it is a {type(value).__name__}: {value!r:.200}. "
            "Pass text, numbers, lists or dicts, and make of them what you need in the workflow."
        )
    return value


def _name_of(function: Any) -> str:
    function = _unwrapped(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _is_importable(module_name: str) -> bool:
    return PathFinder.find_spec(module_name.partition(".")[0]) is not None
