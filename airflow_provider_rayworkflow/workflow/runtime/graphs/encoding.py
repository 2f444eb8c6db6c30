"""From nodes, those of ``@workflow.task`` and of ``.bind()``, to a graph as it is stored.

Reads a graph in linear time and without recursion. Arguments that are all scalars or other nodes
go into the graph as they are, since most tasks of large graphs take nothing else. All others are
pickled, and the pickler tells which nodes are in them.
"""

from __future__ import annotations

import gc
import inspect
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple, cast

import ray
from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow.authoring.map_result import MapResult
from airflow_provider_rayworkflow.workflow.authoring.map_tasks import (
    Mapped,
    MapSpec,
    Reduction,
    hold,
    whole_of,
)
from airflow_provider_rayworkflow.workflow.authoring.maps import MapNode, OverItems
from airflow_provider_rayworkflow.workflow.authoring.node import Call, ItemCall, Part, holds_node
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.authoring.task import TaskFunction
from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.model.codec import dumps, is_plain_scalar
from airflow_provider_rayworkflow.workflow.model.fingerprints import StandIn
from airflow_provider_rayworkflow.workflow.model.graph import (
    Arguments,
    Graph,
    Row,
    Scalars,
    Shape,
    Task,
    Tasks,
    row_of,
)
from airflow_provider_rayworkflow.workflow.model.ids import default_task_id, own_name
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs import ray_dag
from airflow_provider_rayworkflow.workflow.runtime.graphs.code import Functions, counted_in, is_ours
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    current_environment,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.inputs import (
    Argument,
    map_argument,
    mapped_function,
    nested_input,
    nested_value,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.kinds import (
    cache_options_of,
    check_num_returns,
    check_options_of_items,
    check_ray_options,
    is_cached,
    is_keyed,
    options_of,
    retryable_of,
    shown_option,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.large_refs import LargeRefs
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import (
    BoundCall,
    check_graph,
    is_graph,
    refuse_nodes_in_function,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling
from airflow_provider_rayworkflow.workflow.runtime.graphs.unstorable import told_of

Json = dict[str, Any]


_CALLS = (Call, ItemCall, MapNode, OverItems)
#: Longer texts are not repeated for each task that takes them.
_MAX_PLAIN_TEXT = 1_000


def encode_graph(
    node: Any,
    args: tuple[Any, ...] = (),
    kwargs: Json | None = None,
    *,
    environment: Json | None = None,
) -> Graph:
    """Turn the graph that leads to a node into a stored one.

    :param args: and ``kwargs``: what the graph's ``InputNode`` stands for.
    :param environment: the runtime environment of its tasks, by default that of this process.
    :raises TypeError: for nodes that are no functions, arguments that don't fit a signature, and sets
        of nodes.
    :raises ValueError: for options that make no sense here, and cycles.
    """
    check_graph(node)
    with _no_collections():
        graph = _Encoder(args, kwargs or {}).encode(whole_of(node))
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


@dataclass(slots=True, eq=False)
class _Form:
    """What calls have in common that differ in their arguments only.

    :ivar keywords: the names of the last arguments.
    :ivar retryable: the exceptions that the author wants retried; None for all.
    :ivar is_cached: their results are taken from other workflows.
    :ivar is_keyed: each has a cache key of its own.
    :ivar kinds: of their tasks, by the places of plain arguments, None for pickled ones, and the
        functions and classes in these.
    """

    keywords: tuple[str, ...]
    retryable: tuple[type[BaseException], ...] | None
    is_cached: bool = False
    is_keyed: bool = False
    kinds: dict[tuple[Any, ...], int] = field(default_factory=dict)


class ReadCall(NamedTuple):
    """A call whose arguments have been read.

    :ivar arguments: pickled, or the scalars among plain ones.
    :ivar places: of plain arguments, see :class:`Shape`; None for pickled ones.
    :ivar children: the nodes that it takes, in the order of their positions.
    :ivar literals: the fingerprint of what was pickled.
    :ivar named: functions that count in it by their name only, and classes of objects.
    """

    form: _Form
    arguments: bytes | Scalars
    places: tuple[int, ...] | None
    children: Collection[BoundCall]
    literals: str = ""
    named: Sequence[Any] = ()

    @property
    def stored_arguments(self) -> Arguments:
        """As :meth:`.Graph.arguments_of` gives them."""
        if isinstance(self.arguments, bytes):
            return self.arguments
        return self.arguments, Shape(self.places or (), self.form.keywords)


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
        self._forms: dict[tuple[Any, ...], _Form] = {}
        self._blobs: dict[bytes, int] = {}
        self._signatures: dict[Any, inspect.Signature] = {}
        self._children: dict[BoundCall, int] = {}  # of the node that is read, with their positions
        self._held: dict[BoundCall, Sequence[Any]] = {}  # functions in what all items of a map take
        self._nests_values = False  # what it takes inside of containers are values, not references
        self._has_nodes_in_set = False
        self._calls = frozenset(filter(None, (*_CALLS, ray_dag.call_type())))
        #: By the names of functions, for each of these the kinds that it names, with what is behind it.
        self._named: defaultdict[str, defaultdict[Any, list[tuple[int, str]]]]
        self._named = defaultdict(lambda: defaultdict(list))
        self._pickling = RefPickling(also=self._reduce)
        self._functions = Functions(self._blob, RefPickling(also=refuse_nodes_in_function))

    def encode(self, last: BoundCall) -> Graph:
        rows: list[Row] = []
        for node, read, upstream in in_order(last, self.read):
            form, arguments, places, _, literals, named = read
            alike = (places, *map(_id_of, named))
            kind = None if form.is_keyed else form.kinds.get(alike)
            if kind is None:
                kind = form.kinds[alike] = self._add_kind(node, read)
            given = self._blob(arguments) if isinstance(arguments, bytes) else arguments
            item = node._item if type(node) is ItemCall else ""
            rows.append(row_of(kind, given, upstream, literals, item))
        self._functions.name_met()
        self._qualify_names()
        tasks = Tasks(self._kinds, rows)
        return Graph(tasks=tasks, blobs=list(self._blobs), functions=self._functions.named)

    # ---- arguments

    def read(self, node: Any) -> ReadCall:
        """A node's arguments."""
        if type(node) not in self._calls:
            raise TypeError(
                f"Unsupported DAG node: {node}. A workflow's tasks are functions: those of "
                "@workflow.task, and Ray remote functions."
            )
        args, kwargs, options = node._bound_args, node._bound_kwargs, node._bound_options
        # The node keeps its options; so their identity stays theirs.
        key = (node._body, id(options) if options else 0, len(args), tuple(kwargs))
        form = self._forms.get(key)
        if form is None:
            self._check_signature(node)
            form = self._forms[key] = _Form(
                tuple(kwargs), retryable_of(options), is_cached(options), is_keyed(options)
            )
        if form.retryable is None and (
            plain := self._plain(form, (*args, *kwargs.values()) if kwargs else args)
        ):
            return plain
        self._nests_values = type(node) in _CALLS
        try:
            read = self._pickled(form, args, kwargs)
        except Exception as exc:
            told = told_of(exc, node, lambda value: dumps(value, override=self._pickling))
            if told is exc:
                raise
            raise told from exc
        if self._has_nodes_in_set:
            raise TypeError(
                f"{node!r} takes a set with a node in it. A set of nodes has another order in each process, "
                "and what is committed would not be found again. Give a list, and make a set of it in the task."
            )
        return read

    def _plain(self, form: _Form, values: Sequence[Any]) -> ReadCall | None:
        """The arguments, read, if each is a scalar or another task, else None."""
        calls = self._calls
        children: dict[BoundCall, int] = {}
        scalars, places = [], []
        for value in values:
            if type(value) in calls:
                places.append(children.setdefault(value, len(children)))
            elif is_plain_scalar(value) and (
                type(value) is not str or len(value) <= _MAX_PLAIN_TEXT
            ):
                places.append(-1)
                scalars.append(value)
            else:
                return None
        return ReadCall(form, tuple(scalars), tuple(places), children)

    def _pickled(self, form: _Form, args: Sequence[Any], kwargs: Json) -> ReadCall:
        self._children = {}
        args = tuple(self._argument(value) for value in args)
        kwargs = {name: self._argument(value) for name, value in kwargs.items()}
        arguments = dumps((args, kwargs, form.retryable), override=self._pickling)
        # A resume with equal arguments goes on; what another workflow made of them may depend on more than that.
        literals, named = fingerprints.of_call(
            args, kwargs, replace=self._literal, exact=form.is_cached
        )
        return ReadCall(form, arguments, None, list(self._children), literals, named)

    def _argument(self, value: Any) -> Any:
        """An argument of a call as it is pickled: nodes and references count by their value."""
        value = self._behind(value)
        if not is_graph(value):
            return value
        return Argument(self._position(value), value._path if type(value) is Part else ())

    def _reduce(self, obj: Any) -> Any:
        """Nodes inside containers.

        A task of Ray's gets them as references, as in plain Ray, and one of ours as values.
        """
        if ray_dag.is_input(obj):
            return _identity, (self._input(obj),)
        if isinstance(obj, ray.ObjectRef) and is_graph(node := self._refs.behind(obj)):
            return nested_input, (self._position(node),)
        if isinstance(obj, MapResult):
            obj.check_own()
            return map_argument, (obj.to_bytes(),)
        if isinstance(obj, Mapped):
            return mapped_function, (self._functions.pickled(obj.function),)
        if not is_graph(obj):
            return NotImplemented
        path = obj._path if type(obj) is Part else ()
        return nested_value if self._nests_values else nested_input, (self._position(obj), path)

    def _literal(self, obj: Any) -> Any:
        """What is looked at for the fingerprint of arguments."""
        if isinstance(obj, (set, frozenset)):
            self._has_nodes_in_set |= self._nests_values and holds_node(obj)
            return NotImplemented
        if isinstance(obj, MapResult):
            return StandIn(("map", obj.content))
        if isinstance(obj, (MapSpec, Reduction)):
            return obj.decisive
        if isinstance(obj, Mapped):
            return obj.function
        if type(obj) is Argument:
            known = fingerprints.Known(fingerprints.of_input(obj.position))
            return known if not obj.path else StandIn(("input", obj.position, obj.path))
        found = self._behind(obj)
        if is_graph(found):
            path = [found._path] if type(found) is Part else []
            is_value = self._nests_values and found is obj
            what = "nested value" if is_value else "nested input"
            return StandIn((what, self._position(found), *path))
        if found is not obj:
            return found
        if isinstance(obj, TaskFunction):
            return obj.fn
        return obj._function if isinstance(obj, RemoteFunction) else NotImplemented

    def _behind(self, value: Any) -> Any:
        """What an input, or a reference, stands for; else the value itself."""
        if ray_dag.is_input(value):
            value = self._input(value)
        return self._refs.behind(value) if isinstance(value, ray.ObjectRef) else value

    def _input(self, node: Any) -> Any:
        return ray_dag.input_of(node, self._args, self._kwargs)

    def _position(self, node: Any) -> int:
        call = node._call if type(node) is Part else node
        return self._children.setdefault(call, len(self._children))

    def _check_signature(self, node: BoundCall) -> None:
        body = node._body
        if body not in self._signatures:
            self._signatures[body] = inspect.signature(body)
        try:
            self._signatures[body].bind(*node._bound_args, **node._bound_kwargs)
        except TypeError as exc:
            raise TypeError(f"{default_task_id(body)}() can't be called so: {exc}") from None

    # ---- tasks

    def _add_kind(self, node: BoundCall, read: ReadCall) -> int:
        """The index of what the node's task has in common with others."""
        self._kinds.append(self._kind(node, read))
        return len(self._kinds) - 1

    def _kind(self, node: BoundCall, read: ReadCall) -> Task:
        body = node._body
        ours, rays = ray_options.split(node._bound_options)
        name = ours.get("task_id") or default_task_id(body)
        if isinstance(node, OverItems):
            check_options_of_items(name, node._mapped._options)
        elif isinstance(node._bound_options, GivenOptions):
            check_ray_options(name, rays)
        check_num_returns(body, rays.pop("num_returns", None))
        named, also = self._functions_in(node, read)
        code = self._functions.code_of_task(body, ours.get("version"), named, also)
        if isinstance(node, OverItems):
            code = self._code_of_map(node, code)
        is_known = not (read.children or self._args or self._kwargs)
        cache = cache_options_of(node, is_known=is_known)
        if cache is not None and cache.version is None:
            cache = replace(
                cache, code=self._functions.exact_code(body, ours.get("version"), named)
            )
        return Task(
            name=self._name(node, ours.get("task_id")),
            named_by_author=bool(ours.get("task_id")),
            options=options_of(name, ours, rays, cache=cache),
            function=self._functions.index(body),
            shape=Shape(read.places, read.form.keywords) if read.places else Shape(),
            ray_options=self._blob(dumps(rays)) if rays else -1,
            shown_options={key: shown_option(key, value) for key, value in rays.items()},
            code=code,
        )

    def _functions_in(self, node: BoundCall, read: ReadCall) -> tuple[Sequence[Any], Sequence[Any]]:
        """Functions among a call's arguments whose code counts, and those that do in a task of ours."""
        if isinstance(node, OverItems):  # a resume puts the function of then in its items' place
            body = node._mapped.fn
            version = node._mapped._options.workflow.get("version")
            self._functions.code_of_task(body, version, ())
            counted = counted_in(body, read.named) if version is None else []
            return (), counted if any(other is not body for other in counted) else ()
        if node._body is hold:
            self._held[node] = read.named
            return (), counted_in(hold, read.named)
        held = [self._held[child] for child in read.children if child in self._held]
        return counted_in(node._body, [*read.named, *chain.from_iterable(held)]), ()

    def _code_of_map(self, node: OverItems[Any], own: str) -> str:
        """Of a map, how its items run counts as code: it is no argument."""
        options, _ = fingerprints.of_value(node._bound_args[0].indecisive, replace=self._literal)
        return fingerprints.combine(own, options)

    def _name(self, node: BoundCall, given: str | None) -> str:
        """The author's name, or of a function of ``@workflow.task`` its own, unless another one has the same."""
        function = node._body
        if isinstance(node, OverItems):
            function, given = node._mapped.fn, node._mapped._options.name and given
        # Events have the ids of Ray Workflows: by these their senders name them.
        if given or not isinstance(node, Call) or is_ours(function):
            return given or default_task_id(function)
        suffix = node._suffix if isinstance(node, OverItems) else ""
        name = own_name(function) + suffix
        self._named[name][function].append((len(self._kinds), suffix))
        return name

    def _qualify_names(self) -> None:
        """Put the module before names that several functions have: one must not take another's checkpoint.

        Functions made by one call or another of the same function have their code behind it, too.
        """
        for functions in self._named.values():
            if len(functions) == 1:
                continue
            times = Counter(map(default_task_id, functions))
            for body, kinds in functions.items():
                name = default_task_id(body)
                if times[name] > 1:
                    name += self._functions.digest(body)
                for index, suffix in kinds:
                    self._kinds[index] = self._kinds[index]._replace(name=name + suffix)

    def _blob(self, content: bytes) -> int:
        return self._blobs.setdefault(content, len(self._blobs))


def in_order(
    last: BoundCall, read: Callable[[BoundCall], ReadCall]
) -> Iterator[tuple[BoundCall, ReadCall, tuple[int, ...]]]:
    """The nodes of a graph, inputs before users, as a reader would go through the arguments.

    Each with the indexes of those that it takes.
    """
    done: dict[BoundCall, int] = {}
    waiting: dict[BoundCall, ReadCall] = {}  # for nodes that they take
    stack = [last]
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


def reader(*, keeps_refs: bool) -> Callable[[BoundCall], ReadCall]:
    """Reads the arguments of calls, for :func:`in_order`.

    :param keeps_refs: references count by what they refer to, however large that is.
    """
    return _Encoder((), {}, keeps_refs=keeps_refs).read


def _id_of(named: Any) -> int:
    return id(named.cls if isinstance(named, fingerprints.InstanceOf) else named)


def _identity(value: Any) -> Any:
    return value
