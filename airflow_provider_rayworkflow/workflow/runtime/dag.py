"""From ``.bind()`` graphs to our own. The only file that knows ``ray.dag``.

Reads a graph in linear time and without recursion: each node's arguments are pickled once, and
the pickler tells which other nodes are in them.
"""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import CodeType, FunctionType
from typing import Any, cast

import ray
from ray.dag import ClassMethodNode, ClassNode, DAGNode, FunctionNode, InputNode
from ray.dag.input_node import DAGInputData, InputAttributeNode
from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow import fingerprints
from airflow_provider_rayworkflow.workflow.codec import dumps
from airflow_provider_rayworkflow.workflow.graph import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_OPTIONS,
    Graph,
    NamedFunction,
    Task,
    TaskOptions,
)
from airflow_provider_rayworkflow.workflow.ids import default_task_id, stable_module_name
from airflow_provider_rayworkflow.workflow.runtime import functions
from airflow_provider_rayworkflow.workflow.runtime import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.environments import (
    current_environment,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.inputs import Argument, nested_input
from airflow_provider_rayworkflow.workflow.runtime.refs import RefPickling

Json = dict[str, Any]


#: What pickle alone copies as it is.
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, Argument})


def is_dag(value: Any) -> bool:
    """True for anything that ``.bind()`` returns."""
    return isinstance(value, DAGNode)


def check_dag(value: Any) -> None:
    """Return if the value can be a workflow or a continuation.

    :raises TypeError: if not.
    """
    if not isinstance(value, DAGNode):
        raise TypeError(
            f"Input should be a DAG. {value!r:.200} is a {type(value).__name__}; "
            "pass what .bind() of a Ray remote function returns."
        )
    if isinstance(value, (ClassNode, ClassMethodNode)):
        raise TypeError(
            "Currently workflow does not support classes as DAG inputs. "
            "Use remote functions instead of actors."
        )
    if not isinstance(value, FunctionNode):
        raise TypeError(f"Unsupported DAG node: {value}. The output must be a function's.")


def encode_dag(dag: DAGNode, args: tuple[Any, ...] = (), kwargs: Json | None = None) -> Graph:
    """Turn a ``.bind()`` graph into one of ours.

    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :raises TypeError: for nodes that are no functions, and arguments that don't fit a signature.
    :raises ValueError: for options that make no sense here, and cycles.
    """
    check_dag(dag)
    graph = _Encoder(args, kwargs or {}).encode(dag)
    return with_environment(graph, current_environment())


def execute_plainly(dag: DAGNode) -> Any:
    """Run a graph as plain Ray tasks and return its value: a continuation outside a workflow."""
    check_dag(dag)
    done: dict[DAGNode, Any] = {}
    resolve = lambda obj: done.get(obj, obj) if isinstance(obj, DAGNode) else obj  # noqa: E731
    for node in _in_order(dag, lambda node: _children(node)):
        args = _map_nodes(node._bound_args, resolve)
        kwargs = _map_nodes(node._bound_kwargs, resolve)
        _, rays = ray_options.split(node._bound_options)
        rays.pop("max_calls", None)
        done[node] = ray.remote(node._body).options(**rays).remote(*args, **kwargs)
    return ray.get(done[dag])


@dataclass(slots=True)
class _Read:
    """A node whose arguments have been pickled.

    :ivar literals: their fingerprint; :ivar named: functions that count in it by their name only.
    """

    arguments: bytes
    children: list[DAGNode] = field(default_factory=list)
    literals: str = ""
    named: list[Any] = field(default_factory=list)


class _Encoder:
    def __init__(self, args: tuple[Any, ...], kwargs: Json) -> None:
        self._args = args
        self._kwargs = kwargs
        self._read: dict[DAGNode, _Read] = {}
        self._blobs: dict[bytes, int] = {}
        self._functions: dict[Any, int] = {}
        self._signatures: dict[Any, inspect.Signature] = {}
        self._children: dict[DAGNode, int] = {}  # of the node that is read, with their positions
        self._pickling = RefPickling(also=self._reduce)
        self._codes: dict[Any, str] = {}
        self._plain: dict[bytes, str] = {}  # fingerprints of what was pickled
        self._defaults: dict[Any, Task] = {}
        self._named: dict[str, NamedFunction] = {}
        self._met: dict[Any, str | None] = {}  # functions that code refers to, with a version
        self._makes_graphs = False

    def encode(self, dag: DAGNode) -> Graph:
        indexes: dict[DAGNode, int] = {}
        tasks: list[Task] = []
        for node in _in_order(dag, lambda node: self._read_node(node).children):
            indexes[node] = len(tasks)
            read = self._read.pop(node)
            upstream = tuple(indexes[child] for child in read.children)
            # _read_node has refused all other nodes
            tasks.append(self._task(cast(FunctionNode, node), read, upstream))
        self._name_met_functions()
        return Graph(tasks=tasks, blobs=list(self._blobs), functions=self._named)

    # ---- arguments

    def _read_node(self, node: DAGNode) -> _Read:
        if node in self._read:
            return self._read[node]
        if not isinstance(node, FunctionNode):
            raise TypeError(
                f"Unsupported DAG node: {node}. A workflow's tasks are Ray remote functions."
            )
        self._check_signature(node)
        self._children = {}
        args = tuple(self._argument(value) for value in node._bound_args)
        kwargs = {name: self._argument(value) for name, value in node._bound_kwargs.items()}
        read = self._read[node] = self._pickled(args, kwargs, _retryable(node))
        return read

    def _pickled(self, args: tuple[Any, ...], kwargs: Json, retryable: Any) -> _Read:
        if retryable is None and all(type(v) in _PLAIN for v in (*args, *kwargs.values())):
            # What most tasks of a large graph take, and many of them the same.
            arguments = pickle.dumps((args, kwargs, None), protocol=5)
            if arguments not in self._plain:
                self._plain[arguments], _ = fingerprints.of_value(
                    (args, kwargs), replace=self._literal
                )
            return _Read(arguments, list(self._children), self._plain[arguments])
        arguments = dumps((args, kwargs, retryable), override=self._pickling)
        literals, named = fingerprints.of_value((args, kwargs), replace=self._literal)
        return _Read(arguments, list(self._children), literals, named)

    def _argument(self, value: Any) -> Any:
        """An argument of a call as it is pickled: nodes and references count by their value."""
        if isinstance(value, (InputNode, InputAttributeNode)):
            value = self._input(value)
        if isinstance(value, ray.ObjectRef):
            return ray.get(value)
        if isinstance(value, DAGNode):
            return Argument(self._position(value))
        return value

    def _reduce(self, obj: Any) -> Any:
        """Nodes inside containers: a task gets them as references, as in plain Ray."""
        if isinstance(obj, (InputNode, InputAttributeNode)):
            return _identity, (self._input(obj),)
        if isinstance(obj, DAGNode):
            return nested_input, (self._position(obj),)
        return NotImplemented

    def _literal(self, obj: Any) -> Any:
        """What is looked at for the fingerprint of arguments."""
        if isinstance(obj, Argument):
            return "input", obj.position
        if isinstance(obj, (InputNode, InputAttributeNode)):
            return self._input(obj)
        if isinstance(obj, DAGNode):
            return "nested input", self._position(obj)
        if isinstance(obj, ray.ObjectRef):
            return ray.get(obj)
        return obj._function if isinstance(obj, RemoteFunction) else NotImplemented

    def _position(self, node: DAGNode) -> int:
        return self._children.setdefault(node, len(self._children))

    def _input(self, node: InputNode | InputAttributeNode) -> Any:
        single = len(self._args) == 1 and not self._kwargs
        if isinstance(node, InputNode):
            return self._args[0] if single else DAGInputData(*self._args, **self._kwargs)  # type: ignore[no-untyped-call]
        key = node._key
        if isinstance(key, int) and key < len(self._args):
            return self._args[key]
        if key in self._kwargs:
            return self._kwargs[key]
        if single:
            # As in plain Ray, a single argument may also hold the parts itself.
            value = self._args[0]
            by_attribute = node._accessor_method == "__getattr__"
            with suppress(AttributeError, IndexError, KeyError, TypeError):
                return getattr(value, str(key)) if by_attribute else value[key]
        raise KeyError(
            f"The graph uses the input {key!r}, which was not passed: there are "
            f"{len(self._args)} positional arguments and the keywords {list(self._kwargs)}."
        )

    def _check_signature(self, node: FunctionNode) -> None:
        body = node._body
        if body not in self._signatures:
            self._signatures[body] = inspect.signature(body)
        try:
            self._signatures[body].bind(*node._bound_args, **node._bound_kwargs)
        except TypeError as exc:
            raise TypeError(f"{default_task_id(body)}() can't be called so: {exc}") from None

    # ---- tasks

    def _task(self, node: FunctionNode, read: _Read, upstream: tuple[int, ...]) -> Task:
        if node._bound_options or read.named:
            return self._task_with_options(node, read, upstream)
        body = node._body
        if body not in self._defaults:  # most tasks of a large graph differ in their arguments only
            self._defaults[body] = self._task_with_options(node, read, upstream)
        return replace(
            self._defaults[body],
            arguments=self._blob(read.arguments),
            upstream=upstream,
            literals=read.literals,
        )

    def _task_with_options(
        self, node: FunctionNode, read: _Read, upstream: tuple[int, ...]
    ) -> Task:
        ours, rays = ray_options.split(node._bound_options)
        name = ours.get("task_id")
        _check_num_returns(node, rays.pop("num_returns", None))
        options = TaskOptions(
            catch_exceptions=bool(ours.get("catch_exceptions", False)),
            checkpoint=ours.get("checkpoint"),
            max_retries=_or_default(rays.pop("max_retries", None)),
            retry_exceptions=bool(rays.pop("retry_exceptions", False)),
            metadata=ours.get("metadata") or {},
            retry=ours["retry"].to_options() if ours.get("retry") else None,
            timeout_s=ours.get("timeout_s"),
            is_event=ours.get("is_event", False),
            isolate=bool(ours.get("isolate", False)),
            on_change=ours.get("on_change"),
        )
        return Task(
            name=name or default_task_id(node._body),
            named_by_author=bool(name),
            function=self._function(node._body),
            arguments=self._blob(read.arguments),
            upstream=upstream,
            ray_options=self._blob(dumps(rays)) if rays else -1,
            options=DEFAULT_OPTIONS if options == DEFAULT_OPTIONS else options,
            shown_options={key: _shown(key, value) for key, value in rays.items()},
            literals=read.literals,
            code=self._code_of_task(node._body, ours.get("version"), read.named),
        )

    # ---- code

    def _code_of_task(self, body: Any, version: str | None, named: list[Any]) -> str:
        code = self._code(body, version)
        if body.__qualname__ and "<" not in body.__qualname__:
            name = default_task_id(body)
            self._named.setdefault(name, NamedFunction(blob=self._function(body), code=code))
        if version is not None or not named:
            return code
        return fingerprints.combine(code, *(self._code(function) for function in named))

    def _code(self, body: Any, version: str | None = None) -> str:
        if body not in self._codes:
            self._codes[body] = fingerprints.of_code(body, replace=self._meet)
        return self._codes[body] if version is None else fingerprints.of_text(version)

    def _meet(self, obj: Any) -> Any:
        """Take note of what the code of a task refers to, while that is walked."""
        match obj:
            case CodeType():
                self._makes_graphs |= "bind" in obj.co_names
            case FunctionType():
                self._met.setdefault(obj, None)
            case RemoteFunction():
                ours, _ = ray_options.split(obj._default_options)
                self._met[obj._function] = ours.get("version")
                return obj._function
        return NotImplemented

    def _name_met_functions(self) -> None:
        """Note the functions of which tasks may make others: a resume puts them in the place of older ones."""
        packages = {_package_of(body) for body in self._functions}
        while self._makes_graphs and self._met:
            body, version = self._met.popitem()
            name = default_task_id(body)
            is_known = name in self._named or "<" in body.__qualname__
            if is_known or _package_of(body) not in packages:
                continue
            with suppress(TypeError):  # it can't be pickled, and perhaps need not be
                self._named[name] = NamedFunction(
                    blob=self._function(body), code=self._code(body, version)
                )

    def _function(self, body: Callable[..., Any]) -> int:
        if body not in self._functions:
            try:
                pickled = dumps(body, override=self._pickling)
            except Exception as exc:
                raise TypeError(
                    f"The function {default_task_id(body)} can't be pickled: {exc}. Create what "
                    "can't be pickled (connections, locks, sessions) inside of the function."
                ) from exc
            functions.dumped(pickled, body)
            self._functions[body] = self._blob(pickled)
        return self._functions[body]

    def _blob(self, content: bytes) -> int:
        return self._blobs.setdefault(content, len(self._blobs))


def _package_of(function: Any) -> str:
    return stable_module_name(function).partition(".")[0]


def _in_order(dag: DAGNode, children: Callable[[DAGNode], list[DAGNode]]) -> list[DAGNode]:
    """The nodes of a graph, inputs before users, as a reader would go through the arguments."""
    order: list[DAGNode] = []
    entered: set[DAGNode] = set()
    done: set[DAGNode] = set()
    stack: list[tuple[DAGNode, bool]] = [(dag, False)]
    while stack:
        node, is_exit = stack.pop()
        if is_exit:
            done.add(node)
            order.append(node)
        elif node in done:
            continue
        elif node in entered:
            raise ValueError(f"The graph has a cycle through {node}.")
        else:
            entered.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(children(node)))
    return order


def _children(node: DAGNode) -> list[DAGNode]:
    encoder = _Encoder((), {})
    return encoder._read_node(node).children


def _map_nodes(value: Any, resolve: Callable[[Any], Any]) -> Any:
    """Replace nodes in lists, tuples and dicts, in which a plain graph may have them."""
    if isinstance(value, (list, tuple)):
        return type(value)(_map_nodes(item, resolve) for item in value)
    if isinstance(value, dict):
        return {key: _map_nodes(item, resolve) for key, item in value.items()}
    return resolve(value)


def _check_num_returns(node: FunctionNode, num_returns: Any) -> None:
    if num_returns not in (None, 0, 1):
        raise ValueError(
            f"Workflow task can only have one return. {default_task_id(node._body)} has "
            f"num_returns={num_returns!r}; return a tuple and take it apart in another task."
        )
    if inspect.isgeneratorfunction(node._body):
        raise ValueError(
            f"Workflow task can only have one return. {default_task_id(node._body)} is a "
            "generator; return a list."
        )


def _retryable(node: DAGNode) -> tuple[type[BaseException], ...] | None:
    """The exceptions that the author wants retried; None for all."""
    ours, rays = ray_options.split(node._bound_options)
    if ours.get("retry") is not None:
        on = ours["retry"].on
        return on if isinstance(on, tuple) else (on,)
    named = rays.get("retry_exceptions")
    return tuple(named) if isinstance(named, (list, tuple)) else None


def _or_default(max_retries: int | None) -> int:
    return DEFAULT_MAX_RETRIES if max_retries is None else max_retries


def _shown(key: str, value: Any) -> Any:
    if key == "runtime_env" and value:
        hidden = {name: "***" for name in value.get("env_vars") or {}}
        value = dict(value) | ({"env_vars": hidden} if hidden else {})
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)


def _identity(value: Any) -> Any:
    return value
