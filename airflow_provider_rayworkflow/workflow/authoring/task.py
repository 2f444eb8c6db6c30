"""``@workflow.task``: functions whose calls are nodes of a workflow's graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from airflow_provider_rayworkflow.workflow.authoring.node import Call, Node
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Unpack

    from airflow_provider_rayworkflow.workflow.authoring.maps import MapNode
    from airflow_provider_rayworkflow.workflow.authoring.options import TaskKeywords

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskFunction(Generic[P, R_co]):
    """A function that runs as a task of a workflow. :func:`task` makes it.

    A call gives a node; the function itself is ``fn``. Each method returns something new.

    :ivar fn: the plain function.
    """

    def __init__(self, fn: Callable[P, Any], options: GivenOptions) -> None:
        self.fn: Callable[P, R_co] = fn
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn
        self._options = options
        self._signature: inspect.Signature | None = None
        self._known_calls: set[tuple[int, tuple[str, ...]]] = set()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Node[R_co]:
        """A node for the call; nothing runs yet.

        :param args: and ``kwargs``: of the function. Nodes in them, also in lists, dicts, dataclasses
            and other objects that can be pickled, are replaced by their values when the task runs.
        :raises TypeError: when the function can't be called so.
        """
        self._check_call(args, kwargs)
        return Call(self.fn, args, kwargs, self._options)

    def with_options(self, /, **options: Unpack[TaskKeywords]) -> TaskFunction[P, R_co]:
        """The same function with other options; those that are not named stay.

        :raises ValueError: as :func:`task`.
        """
        return TaskFunction(self.fn, self._options.changed(cast("Mapping[str, Any]", options)))

    def outputs(self, *names: str) -> Callable[..., tuple[Node[Any], ...]]:
        """A call of this gives a node for each named output, in this order.

        The function returns a dict with these keys, an object with these attributes, or a tuple or list
        of as many values. Each output becomes a task ``<task>.<name>`` with a checkpoint of its own, and
        who takes one does not load the others.

        :raises ValueError: for no names, the same name twice, and what is no name.
        """
        from airflow_provider_rayworkflow.workflow.authoring.outputs import named_outputs

        return named_outputs(self, names)

    def map(
        self,
        /,
        items: Any,
        *,
        key: Callable[[Any], Any] | str | None = None,
        max_concurrency: int | None = None,
        max_failed: int | str = 0,
        batch_size: int = 1,
        **fixed: Any,
    ) -> MapNode[R_co]:
        """A task for each item, and a node for all their results, a :class:`MapResult` in the items' order.

        The items are read when the map begins, and what they are is committed: a resume maps the same ones.
        Where the items have changed since, each is found again by its key.

        :param items: a list, a dict of items by their keys, or a node whose value is one; the result of another
            map, too. What all of them share is ``fixed``, where nodes may stand as in any call.
        :param key: of an item, as its task is named, ``f[key]``: a function of the item, or the name of a field or
            of an entry. By default the keys of a dict, else the item's number.
        :param max_concurrency: how many items run at once. An item that waits holds nothing.
        :param max_failed: how many items may fail, or as ``"2%"`` what share of them: they are listed in
            ``failed``, and the map goes on. One more fails it, at once.
        :param batch_size: how many items may share one call of a worker, however long they take; each keeps its
            own checkpoint, retries and errors.
        :raises TypeError: for items that have no order, and where the function can't be called so, or has a
            parameter of the name of one of these (but for one that the items fill).
        :raises ValueError: for limits that can't be used, and options that make no sense in a map.
        """
        from airflow_provider_rayworkflow.workflow.authoring import maps

        given = maps.MapArguments(
            key=key, max_concurrency=max_concurrency, max_failed=max_failed, batch_size=batch_size
        )
        return maps.mapped(self, items, given, fixed, star=False)

    def starmap(
        self,
        /,
        items: Any,
        *,
        key: Callable[[Any], Any] | str | None = None,
        max_concurrency: int | None = None,
        max_failed: int | str = 0,
        batch_size: int = 1,
        **fixed: Any,
    ) -> MapNode[R_co]:
        """As :meth:`map`, with items that are tuples or lists of arguments: ``f.starmap(zip(days, cities))``.

        :raises TypeError: as :meth:`map`; so is ``ValueError``.
        """
        from airflow_provider_rayworkflow.workflow.authoring import maps

        given = maps.MapArguments(
            key=key, max_concurrency=max_concurrency, max_failed=max_failed, batch_size=batch_size
        )
        return maps.mapped(self, items, given, fixed, star=True)

    def _check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What a call is checked for depends on the number of its arguments and their names only.
        form = len(args), tuple(kwargs)
        if form in self._known_calls:
            return
        if self._signature is None:
            self._signature = inspect.signature(self.fn)
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self.__name__}() can't be called so: {exc}") from None
        if len(self._known_calls) < _MAX_FORMS:
            self._known_calls.add(form)

    def __set_name__(self, owner: type, name: str) -> None:
        raise TypeError(
            f"{owner.__qualname__}.{name} is a method, and a task is a function. Put @workflow.task on "
            "a function that takes the object as an argument, or add @staticmethod above it."
        )

    def __reduce__(self) -> Any:
        return TaskFunction, (self.fn, self._options)

    def __repr__(self) -> str:
        return f"<workflow task {self.__module__}.{self.__qualname__}>"


class _Decorator(Protocol):
    """What ``@workflow.task(…)`` puts around a function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...


#: Of so many forms of calls a task remembers that they are right.
_MAX_FORMS = 1_000


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(**options: Unpack[TaskKeywords]) -> _Decorator: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Make a function a workflow task: ``@workflow.task``, or ``@workflow.task(num_cpus=2, name="load")``.

    .. code-block:: python

        @workflow.task
        def square(x: int) -> int:
            return x * x

        @workflow.task(retry=workflow.Retry(attempts=3), memory="4GiB")
        def total(values: list[int]) -> int:
            return sum(values)

        workflow.run(total([square(number) for number in range(10)]))

    A call gives a :class:`Node` in place of the result. Ray is not imported, neither here nor by calls.
    ``square.fn(3)`` calls the function itself. An ``async`` function is a task, too; each of its calls
    runs in an event loop of its own.

    :param function: a plain function, at any place but in a class. A function with ``yield`` is none.
    :param options: ``name``: the task's id, a number is put behind it if it is taken; by default the
        function's own name. All options of :class:`.options` but ``task_id``. Of Ray: ``num_cpus``,
        ``num_gpus``, ``memory`` (bytes, or ``"4GiB"``), ``resources``, ``accelerator_type``,
        ``runtime_env``, ``label_selector``, ``scheduling_strategy``, ``max_calls``, ``max_retries``,
        ``retry_exceptions``.
    :raises TypeError: for what is no plain function.
    :raises ValueError: for an option that does not exist, or whose value can't be used.
    """
    given = GivenOptions().changed(options)
    if function is None:
        return lambda decorated: TaskFunction(_checked(decorated), given)
    return TaskFunction(_checked(function), given)


def _checked(function: Any) -> Callable[..., Any]:
    if isinstance(function, TaskFunction):
        raise TypeError(f"{function!r} is a task already: give all options to one @workflow.task.")
    if not inspect.isfunction(function):
        raise TypeError(
            f"@workflow.task is for functions, and {function!r:.200} is a {type(function).__name__}."
            + _remedy_for(function)
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__}() has a yield, and a task has one result. Return a list, or a "
            "dict of the outputs that you name with .outputs(…)."
        )
    return function


def _remedy_for(function: Any) -> str:
    if hasattr(function, "bind") and hasattr(function, "remote"):
        return " Take @ray.remote away: its options are options of @workflow.task."
    if isinstance(function, (staticmethod, classmethod)):
        return " Put @staticmethod above @workflow.task, not below."
    return " Write a function that calls it."
