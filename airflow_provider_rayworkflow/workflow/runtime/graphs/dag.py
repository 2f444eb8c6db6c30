"""From ``.bind()`` graphs to our own. The only file that knows ``ray.dag``.

Reads a graph in linear time and without recursion. Arguments that are all scalars or other nodes
go into the graph as they are, since most tasks of large graphs take nothing else. All others are
pickled, and the pickler tells which nodes are in them.
"""

from __future__ import annotations

import gc
import inspect
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import ray
from ray.dag import ClassMethodNode, ClassNode, DAGNode, FunctionNode, InputNode
from ray.dag.input_node import DAGInputData, InputAttributeNode
from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow.checks import check_cleanup
from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.model.codec import dumps, is_plain_scalar
from airflow_provider_rayworkflow.workflow.model.escalation import escalation_of
from airflow_provider_rayworkflow.workflow.model.graph import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_OPTIONS,
    Graph,
    Row,
    Scalars,
    Shape,
    Task,
    TaskOptions,
    Tasks,
)
from airflow_provider_rayworkflow.workflow.model.ids import default_task_id
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs.code import Functions
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    current_environment,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.inputs import Argument, nested_input
from airflow_provider_rayworkflow.workflow.runtime.graphs.large_refs import Held, LargeRefs
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling

Json = dict[str, Any]


#: Longer texts are not repeated for each task that takes them.
_MAX_PLAIN_TEXT = 1_000


class MissingInputError(KeyError, ValueError):
    """An ``InputNode`` of the graph stands for an argument that was not passed."""

    def __str__(self) -> str:
        return str(self.args[0])


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
            f"{_remedy_for(value)}"
        )
    if isinstance(value, (ClassNode, ClassMethodNode)):
        raise TypeError(
            "Currently workflow does not support classes as DAG inputs. "
            "Use remote functions instead of actors."
        )
    if not isinstance(value, FunctionNode):
        raise TypeError(f"Unsupported DAG node: {value}. The output must be a function's.")


def _remedy_for(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return "bind one more task that takes its nodes and returns what you need, and pass that."
    if isinstance(value, ray.ObjectRef):
        return "the task runs already: use .bind() in place of .remote()."
    if isinstance(value, RemoteFunction):
        return "pass what its .bind() returns."
    if inspect.isawaitable(value) or inspect.isgenerator(value):
        return (
            "the function that makes the graph must be a plain one, neither async nor a generator."
        )
    return "pass what .bind() of a Ray remote function returns."


def refuse_nodes(obj: Any) -> Any:
    """Keep a node from being stored as a value: what is in a container would never run.

    :raises TypeError: for a node.
    """
    if isinstance(obj, DAGNode):
        raise TypeError(
            f"it has a node in it, what .bind() returned ({obj!s:.100}), and only a node that is "
            "returned itself is run. Bind one more task that takes the nodes, and return that"
        )
    return NotImplemented


def encode_dag(
    dag: DAGNode,
    args: tuple[Any, ...] = (),
    kwargs: Json | None = None,
    *,
    environment: Json | None = None,
) -> Graph:
    """Turn a ``.bind()`` graph into one of ours.

    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :param environment: the runtime environment of its tasks, by default that of this process.
    :raises TypeError: for nodes that are no functions, and arguments that don't fit a signature.
    :raises ValueError: for options that make no sense here, and cycles.
    """
    check_dag(dag)
    with _no_collections():
        graph = _Encoder(args, kwargs or {}).encode(dag)
    return with_environment(graph, current_environment() if environment is None else environment)


_switching = threading.Lock()


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep Python's garbage collector from looking through all nodes again and again.

    Of threads that overlap, the first one switches it on when it ends: later ones go on slower.
    """
    with _switching:
        was_on = gc.isenabled()
        gc.disable()
    try:
        yield
    finally:
        if was_on:
            with _switching:
                gc.enable()


def execute_plainly(dag: DAGNode) -> Any:
    """Run a graph as plain Ray tasks and return its value: a continuation outside a workflow."""
    check_dag(dag)
    done: dict[DAGNode, Any] = {}
    resolve = lambda obj: done.get(obj, obj) if isinstance(obj, DAGNode) else obj  # noqa: E731
    for node, _, _ in _in_order(dag, _Encoder((), {}, keeps_refs=True).read):
        args = _map_nodes(node._bound_args, resolve)
        kwargs = _map_nodes(node._bound_kwargs, resolve)
        _, rays = ray_options.split(node._bound_options)
        rays.pop("max_calls", None)
        done[node] = ray.remote(node._body).options(**rays).remote(*args, **kwargs)
    return ray.get(done[dag])


@dataclass(slots=True, eq=False)
class _Call:
    """What nodes have in common that differ in their arguments only.

    :ivar keywords: the names of the last arguments.
    :ivar retryable: the exceptions that the author wants retried; None for all.
    :ivar kinds: of their tasks, by the places of plain arguments, None for pickled ones.
    """

    keywords: tuple[str, ...]
    retryable: tuple[type[BaseException], ...] | None
    kinds: dict[tuple[int, ...] | None, int] = field(default_factory=dict)


class _Read(NamedTuple):
    """A node whose arguments have been read.

    :ivar arguments: pickled, or the scalars among plain ones.
    :ivar places: of plain arguments, see :class:`Shape`; None for pickled ones.
    :ivar children: the nodes that it takes, in the order of their positions.
    :ivar literals: the fingerprint of what was pickled.
    :ivar named: functions that count in it by their name only.
    """

    call: _Call
    arguments: bytes | Scalars
    places: tuple[int, ...] | None
    children: Collection[DAGNode]
    literals: str = ""
    named: Sequence[Any] = ()


class _Encoder:
    """Makes the rows, kinds and blobs of one graph.

    :param args: of ``execute``, for its ``InputNode``; so are ``kwargs``.
    :param keeps_refs: references count by what they refer to, however large that is.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Json, *, keeps_refs: bool = False) -> None:
        self._args = args
        self._kwargs = kwargs
        self._refs = LargeRefs(keeps=keeps_refs)
        self._kinds: list[Task] = []
        self._calls: dict[tuple[Any, ...], _Call] = {}
        self._blobs: dict[bytes, int] = {}
        self._signatures: dict[Any, inspect.Signature] = {}
        self._children: dict[DAGNode, int] = {}  # of the node that is read, with their positions
        self._pickling = RefPickling(also=self._reduce)
        self._functions = Functions(self._blob, self._pickling)

    def encode(self, dag: DAGNode) -> Graph:
        rows: list[Row] = []
        for node, read, upstream in _in_order(dag, self.read):
            call, arguments, places, _, literals, named = read
            kind = None if named else call.kinds.get(places)
            if kind is None:
                kind = self._add_kind(node, read)
            given = self._blob(arguments) if isinstance(arguments, bytes) else arguments
            rows.append((kind, given, upstream, literals))
        self._functions.name_met()
        tasks = Tasks(self._kinds, rows)
        return Graph(tasks=tasks, blobs=list(self._blobs), functions=self._functions.named)

    # ---- arguments

    def read(self, node: DAGNode) -> _Read:
        """A node's arguments."""
        if not isinstance(node, FunctionNode):
            raise TypeError(
                f"Unsupported DAG node: {node}. A workflow's tasks are Ray remote functions."
            )
        args, kwargs, options = node._bound_args, node._bound_kwargs, node._bound_options
        # The node keeps its options; so their identity stays theirs.
        key = (node._body, id(options) if options else 0, len(args), tuple(kwargs))
        call = self._calls.get(key)
        if call is None:
            self._check_signature(node)
            call = self._calls[key] = _Call(tuple(kwargs), _retryable(node))
        if call.retryable is None and (
            plain := _plain(call, (*args, *kwargs.values()) if kwargs else args)
        ):
            return plain
        return self._pickled(call, args, kwargs)

    def _pickled(self, call: _Call, args: Sequence[Any], kwargs: Json) -> _Read:
        self._children = {}
        args = tuple(self._argument(value) for value in args)
        kwargs = {name: self._argument(value) for name, value in kwargs.items()}
        arguments = dumps((args, kwargs, call.retryable), override=self._pickling)
        literals, named = fingerprints.of_value((args, kwargs), replace=self._literal)
        return _Read(call, arguments, None, list(self._children), literals, named)

    def _argument(self, value: Any) -> Any:
        """An argument of a call as it is pickled: nodes and references count by their value."""
        if isinstance(value, (InputNode, InputAttributeNode)):
            value = self._input(value)
        if isinstance(value, ray.ObjectRef):
            value = self._refs.behind(value)
        if isinstance(value, DAGNode):
            return Argument(self._position(value))
        return value.value if type(value) is Held else value

    def _reduce(self, obj: Any) -> Any:
        """Nodes inside containers: a task gets them as references, as in plain Ray."""
        if isinstance(obj, (InputNode, InputAttributeNode)):
            return _identity, (self._input(obj),)
        if isinstance(obj, ray.ObjectRef) and isinstance(node := self._refs.behind(obj), DAGNode):
            obj = node
        if isinstance(obj, DAGNode):
            return nested_input, (self._position(obj),)
        return NotImplemented

    def _literal(self, obj: Any) -> Any:
        """What is looked at for the fingerprint of arguments."""
        if isinstance(obj, Argument):
            return "input", obj.position
        if isinstance(obj, (InputNode, InputAttributeNode)):
            return self._input(obj)
        if isinstance(obj, ray.ObjectRef):
            obj = self._refs.behind(obj)
            if not isinstance(obj, DAGNode):
                return obj
        if isinstance(obj, DAGNode):
            return "nested input", self._position(obj)
        return obj._function if isinstance(obj, RemoteFunction) else NotImplemented

    def _position(self, node: DAGNode) -> int:
        return self._children.setdefault(node, len(self._children))

    def _input(self, node: InputNode | InputAttributeNode) -> Any:
        single = len(self._args) == 1 and not self._kwargs
        if isinstance(node, InputNode):
            if not self._args and not self._kwargs:
                raise MissingInputError(
                    "The graph has an InputNode, and no argument was passed. Pass it to run(), or "
                    "make the graph without an InputNode, by a function that takes arguments."
                )
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
        raise MissingInputError(
            f"The graph uses the input {key!r}, which was not passed: there are "
            f"{len(self._args)} positional arguments and the keywords {list(self._kwargs)}. Pass it "
            "to run(), or make the graph without an InputNode, by a function that takes arguments."
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

    def _add_kind(self, node: DAGNode, read: _Read) -> int:
        """The index of what the node's task has in common with others."""
        # `read` has refused all other nodes
        self._kinds.append(self._kind(cast(FunctionNode, node), read))
        index = len(self._kinds) - 1
        if not read.named:
            read.call.kinds[read.places] = index
        return index

    def _kind(self, node: FunctionNode, read: _Read) -> Task:
        ours, rays = ray_options.split(node._bound_options)
        name = ours.get("task_id")
        _check_num_returns(node, rays.pop("num_returns", None))
        check_cleanup(ours)
        options = TaskOptions(
            catch_exceptions=bool(ours.get("catch_exceptions", False)),
            checkpoint=ours.get("checkpoint"),
            max_retries=_or_default(rays.pop("max_retries", None)),
            retry_exceptions=bool(rays.pop("retry_exceptions", False)),
            metadata=ours.get("metadata") or {},
            retry=ours["retry"].to_options() if ours.get("retry") else None,
            timeout_s=ours.get("timeout_s"),
            is_event=ours.get("is_event", False),
            isolate=bool(ours.get("isolate", False)) or _is_watched(ours),
            on_change=ours.get("on_change"),
            stop_grace_s=ours.get("stop_grace_s"),
            max_preemptions=ours.get("max_preemptions"),
            max_oom_retries=ours.get("max_oom_retries"),
            max_crashes=ours.get("max_crashes"),
            escalation=escalation_of(name or default_task_id(node._body), ours, rays),
            when=ours.get("when") or "all_success",
            cleanup_s=ours.get("cleanup_s"),
            heartbeat_timeout_s=ours.get("heartbeat_timeout_s"),
        )
        return Task(
            name=name or default_task_id(node._body),
            named_by_author=bool(name),
            function=self._functions.index(node._body),
            shape=Shape(read.places, read.call.keywords) if read.places else Shape(),
            ray_options=self._blob(dumps(rays)) if rays else -1,
            options=DEFAULT_OPTIONS if options == DEFAULT_OPTIONS else options,
            shown_options={key: _shown(key, value) for key, value in rays.items()},
            code=self._functions.code_of_task(node._body, ours.get("version"), read.named),
        )

    def _blob(self, content: bytes) -> int:
        return self._blobs.setdefault(content, len(self._blobs))


def _plain(call: _Call, values: Sequence[Any]) -> _Read | None:
    """The arguments, read, if each is a scalar or another task, else None."""
    children: dict[DAGNode, int] = {}
    scalars, places = [], []
    for value in values:
        if type(value) is FunctionNode:
            places.append(children.setdefault(value, len(children)))
        elif is_plain_scalar(value) and (type(value) is not str or len(value) <= _MAX_PLAIN_TEXT):
            places.append(-1)
            scalars.append(value)
        else:
            return None
    return _Read(call, tuple(scalars), tuple(places), children)


def _in_order(
    dag: DAGNode, read: Callable[[DAGNode], _Read]
) -> Iterator[tuple[DAGNode, _Read, tuple[int, ...]]]:
    """The nodes of a graph, inputs before users, as a reader would go through the arguments.

    Each with the indexes of those that it takes.
    """
    done: dict[DAGNode, int] = {}
    waiting: dict[DAGNode, _Read] = {}  # for nodes that they take
    stack = [dag]
    while stack:
        node = stack.pop()
        if node in done:
            continue
        found = waiting.pop(node, None) or read(node)
        upstream = tuple(map(done.get, found.children))
        if None in upstream:
            missing = [child for child in found.children if child not in done]
            waiting[node] = found
            if not waiting.keys().isdisjoint(missing):
                raise ValueError(f"The graph has a cycle through {node}.")
            stack.append(node)
            stack.extend(reversed(missing))
        else:
            yield node, found, cast(tuple[int, ...], upstream)
            done[node] = len(done)


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


def _is_watched(ours: Mapping[str, Any]) -> bool:
    """True if what happens to the task's worker is a matter of the task alone."""
    return not (ours.get("stop_grace_s") is None and ours.get("heartbeat_timeout_s") is None)


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
