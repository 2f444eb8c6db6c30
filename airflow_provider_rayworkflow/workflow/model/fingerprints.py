"""Fingerprints of arguments and code: equal for equal content, in whatever process they are made.

Pickles won't do. Two of the same value differ by the order of sets, by which parts are one and the
same object, and by line numbers and file names of functions. So values are walked here, and each
part counts by what it is:

- containers and objects by their content; sets and dicts without their order, as they are equal then
  (plain values in containers all at once, see :mod:`.plain_values`);
- arrays and tables by their values (see :mod:`.tables`);
- functions, lambdas and classes that are written inside of another function by their code;
- other functions and classes by their name: what they do is code, not an argument. Their code
  counts in the fingerprint of the task's code.

Code is bytecode, without line numbers, comments and docstrings, with default values, closures, and
of the globals that it names: functions and classes of the same package, also behind a cache, a
``partial`` or a module, constants, and of other variables the code of their classes. An *exact*
fingerprint, for results that are taken from other workflows, has also what variables hold, the order
of dicts, and what is kept in a ``cached_property``. Bytecode differs between versions of Python, so a
fingerprint of code is compared within one version only.
"""

from __future__ import annotations

import builtins
import copyreg
import functools
import hashlib
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from airflow_provider_rayworkflow.workflow.model import plain_values
from airflow_provider_rayworkflow.workflow.model.code_parts import (
    CODE_TYPES,
    PLAIN,
    constants,
    global_names,
    is_constant,
    is_of_module,
    named_instead,
    names_in,
    root_of,
    wrapped,
)
from airflow_provider_rayworkflow.workflow.model.ids import stable_module_name
from airflow_provider_rayworkflow.workflow.model.reduced import reduced_of, without_caches
from airflow_provider_rayworkflow.workflow.model.tables import by_values
from airflow_provider_rayworkflow.workflow.model.variables import Variables

#: Given a value that is no list, tuple or dict, returns what to look at in its place, or NotImplemented.
Replace = Callable[[Any], Any]


class Comparison(Enum):
    """How a fingerprint of now stands to a stored one."""

    SAME = "same"
    CHANGED = "changed"
    #: One of them is not known, or they are of bytecode of two versions of Python.
    UNKNOWN = "unknown"


def compare(stored: str, now: str) -> Comparison:
    """Compare two fingerprints; ``""`` is one that is not known."""
    if not stored or not now:
        return Comparison.UNKNOWN
    if stored == now:
        return Comparison.SAME
    versions = {python for python in (_python_of(stored), _python_of(now)) if python}
    return Comparison.UNKNOWN if len(versions) > 1 else Comparison.CHANGED


def combine(*parts: str) -> str:
    """One fingerprint of several; ``""`` if one of them is not known."""
    if not parts:
        return _OF_NOTHING
    if not all(parts):
        return ""
    content = "".join([f"{len(part)}:{part}" for part in parts])
    digest = hashlib.sha256(f"8:combined{content}".encode()).digest()
    if "@" not in content:
        return _shown(digest, "")
    return _shown(digest, max([_python_of(part) for part in parts if "@" in part]))


def of_text(text: str) -> str:
    """The fingerprint of a text: a version that stands for code, the id of a task."""
    return _shown(_hash(b"text", text.encode(errors="surrogatepass")), "")


def of_value(value: Any, *, replace: Replace) -> tuple[str, list[Any]]:
    """The fingerprint of a value, ``""`` if it has parts that can't be told apart from others.

    :returns: with the functions and classes in it that count by their name only, and an
        :class:`InstanceOf` for each class of its objects.
    """
    walk = _Walk(replace, roots=None)
    return walk.fingerprint(value), walk.named


def of_call(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    replace: Replace,
    exact: bool = False,
) -> tuple[str, list[Any]]:
    """The fingerprint of the arguments of a call, as :func:`of_value`; see :func:`of_arguments`."""
    walk = _Walk(replace, roots=None, exact=exact)
    return walk.of_call(args, kwargs), walk.named


@dataclass(frozen=True, slots=True)
class Known:
    """What a value counts by, if ``replace`` knows it already."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class StandIn:
    """What ``replace`` gives for a value that is not there yet; equal to no value that is."""

    parts: tuple[Any, ...]


class InstanceOf(NamedTuple):
    """Tells of a value that it has objects of a class: their methods are code of who calls them."""

    cls: type


def of_scalar(value: Any) -> bytes:
    """A part of :func:`of_arguments`."""
    content = _content(value)
    return hashlib.sha256(b"%b%d:%b" % (_TYPES[type(value)], len(content), content)).digest()


@functools.lru_cache(maxsize=1_000)
def of_input(position: int) -> bytes:
    """A part of :func:`of_arguments`: what stands for the result of a task upstream."""
    return _hash(b"tuple", of_scalar("input"), of_scalar(position))


def of_arguments(args: Sequence[bytes], kwargs: Mapping[str, bytes]) -> str:
    """The fingerprint of the arguments of a call, given the digest of each."""
    return _shown(_of_arguments(args, kwargs), "")


def _of_arguments(args: Sequence[bytes], kwargs: Mapping[str, bytes]) -> bytes:
    pairs = sorted([_hash(of_scalar(name), part) for name, part in kwargs.items()])
    named = _hash(b"dict", _hash(*pairs)) if pairs else _NO_KWARGS
    return _of_digests(b"5:tuple", _of_digests(b"5:tuple", *args), named)


def of_code(function: Any, *, replace: Replace, exact: bool = False) -> str:
    """The fingerprint of the code of a function or class; ``""`` where its code can't be read."""
    return _Walk(replace, roots={root_of(function)}, exact=exact).fingerprint(function)


def _python_of(fingerprint: str) -> str:
    return fingerprint.partition("@")[2]


def _shown(digest: bytes, python: str) -> str:
    return f"{digest[:8].hex()}@{python}" if python else digest[:8].hex()


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in parts])).digest()


def _of_digests(first: bytes, *digests: bytes) -> bytes:
    """As :func:`_hash`, of digests of 32 bytes behind a part that carries its length already."""
    return hashlib.sha256(b"32:".join((first, *digests))).digest()


_OF_NOTHING = _shown(_hash(b"combined"), "")


_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_TYPES = {kind: b"%d:%b" % (len(kind.__name__), kind.__name__.encode()) for kind in PLAIN}
_IGNORED_IN_CLASSES = frozenset(
    {"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__"}
    | {"__static_attributes__", "__annotations__", "__annotate__", "__dataclass_fields__"}
    | {"__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__"}
)


class _Walk:
    """One walk over a value, or with ``roots`` over code.

    :param roots: the packages whose functions and classes count by their code; None: only what has
        no name of its own does.
    """

    def __init__(self, replace: Replace, *, roots: set[str] | None, exact: bool = False) -> None:
        self._replace = replace
        self._roots = roots
        self._home = ""  # the package of the function that is walked, where there are no roots
        self._exact = exact
        self._variables = Variables(self._global, self._digest, self._is_own)
        self._done: dict[
            int, tuple[bytes, Any]
        ] = {}  # with the value, so that its id stays its own
        self._open: dict[int, int] = {}
        self._has_bytecode = False
        self._is_root = True
        self._classes: set[type] = set()
        self.named: list[Any] = []

    def fingerprint(self, value: Any) -> str:
        return self._result(lambda: self._digest(value))

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        return self._result(
            lambda: _of_arguments(
                [self._digest(value) for value in args],
                {name: self._digest(value) for name, value in kwargs.items()},
            )
        )

    def _result(self, walk: Callable[[], bytes]) -> str:
        try:
            digest = walk()
        except Exception:  # users' objects may do anything when they are asked for their content
            return ""
        return _shown(digest, _PYTHON if self._has_bytecode else "")

    def _digest(self, value: Any) -> bytes:
        kind = type(value)
        if kind in PLAIN:
            return of_scalar(value)
        key = id(value)
        if key in self._done:
            return self._done[key][0]
        if key in self._open:
            return _hash(b"cycle", b"%d" % (len(self._open) - self._open[key]))
        self._open[key] = len(self._open)
        try:
            digest = self._digest_of(value)
        finally:
            del self._open[key]
        self._done[key] = (digest, value)
        return digest

    def _digest_of(self, value: Any) -> bytes:
        kind = type(value)
        if kind is list or kind is tuple or (kind is dict and plain_values.has_sorted_keys(value)):
            return plain_values.digest(value, self._digest, with_order=self._exact)
        replaced = self._replace(value)
        if type(replaced) is Known:
            return replaced.digest
        if type(replaced) is StandIn:
            return _hash(b"stand-in", self._digest(replaced.parts))
        if replaced is not NotImplemented:
            return self._digest(replaced)
        is_root, self._is_root = self._is_root, False
        if kind is dict:
            return _hash(b"dict", self._pairs(value.items(), with_order=self._exact))
        match value:
            case types.FunctionType():
                if is_root and self._roots is not None:
                    return self._function(value)
                return self._by_name_or(value, self._function)
            case type():
                if is_root and self._roots is not None:
                    return self._class(value)
                return self._by_name_or(value, self._class)
        return self._digest_of_other(value)

    def _digest_of_other(self, value: Any) -> bytes:
        match value:
            case types.MethodType():
                return _hash(b"method", self._digest(value.__func__), self._digest(value.__self__))
            case types.BuiltinFunctionType():
                owner = value.__self__
                if owner is None or isinstance(owner, types.ModuleType):
                    return _hash(b"builtin", f"{value.__module__}.{value.__qualname__}".encode())
                return _hash(b"builtin method", self._digest(owner), value.__name__.encode())
            case types.ModuleType():
                return _hash(b"module", stable_module_name(value).encode())
            case types.CodeType():
                return self._code(value)
            case types.CellType():
                return self._cell(value)
            case staticmethod() | classmethod():
                return _hash(type(value).__name__.encode(), self._global(value.__func__))
            case functools._lru_cache_wrapper():
                return _hash(b"cached", self._digest(value.__wrapped__))
            case property():
                parts = (value.fget, value.fset, value.fdel)
                kind = self._kind(type(value))
                return _hash(b"property", kind, *(self._digest(part) for part in parts))
            case set() | frozenset():
                state = getattr(value, "__dict__", None) or None
                kind = self._kind(type(value))
                return _hash(kind, b"set", self._unordered(value), self._digest(state))
            case bytearray() | memoryview() | pickle.PickleBuffer():
                return _of_buffer(value)
        return self._object(value)

    # ---- data

    def _unordered(self, values: Collection[Any]) -> bytes:
        in_order = plain_values.sorted_items(values)
        if in_order is not None:
            return plain_values.digest(in_order, self._digest)
        return _hash(*sorted(map(self._digest, values)))

    def _pairs(self, items: Iterable[tuple[Any, Any]], *, with_order: bool) -> bytes:
        pairs = [_hash(self._digest(k), self._digest(v)) for k, v in items]
        return _hash(*(pairs if with_order else sorted(pairs)))

    def _object(self, value: Any) -> bytes:
        """An array or table by its values, another object by what pickle would make it of."""
        kind, parts = self._kind(type(value)), by_values(value)
        if parts is not NotImplemented:
            # Indexes of several classes are equal. Of which class an array is, its parts say.
            return _hash(b"v", b"" if self._roots is None else kind, self._digest(parts))
        reduced = reduced_of(value)
        if isinstance(reduced, str):
            return _hash(b"global", stable_module_name(value).encode(), reduced.encode())
        make, args, state, items, pairs = (*reduced, None, None, None)[:5]
        if make is getattr(copyreg, "__newobj__", None):
            made_of = [_name_of(args[0]).encode(), *map(self._digest, args[1:])]
        else:
            made_of = [self._digest(make), *map(self._digest, args)]
        return _hash(
            b"object",
            kind,
            _hash(*made_of),
            self._digest(state if self._exact else without_caches(type(value), state)),
            self._digest(list(items or ())),
            self._pairs(pairs or (), with_order=self._exact or isinstance(value, OrderedDict)),
        )

    def _kind(self, cls: type) -> bytes:
        """The class of an object: its code counts as the code of those who take the object."""
        if self._roots is not None:
            return self._digest(cls)
        if cls not in self._classes and cls.__module__ != "builtins":
            self._classes.add(cls)
            self.named.append(InstanceOf(cls))
        return _name_of(cls).encode()

    # ---- code

    def _by_name_or(self, value: Any, by_code: Callable[[Any], bytes]) -> bytes:
        is_of_roots = self._roots is not None and root_of(value) in self._roots
        if "<" in value.__qualname__ or is_of_roots or named_instead(value) is not None:
            before, self._home = self._home, root_of(value)
            try:
                return by_code(value)
            finally:
                self._home = before
        self.named.append(value)
        return _hash(b"named", _name_of(value).encode())

    def _is_own(self, value: Any) -> bool:
        """True for a module or class of the package whose code is walked."""
        return root_of(value) in (self._roots or {self._home})

    def _function(self, function: types.FunctionType) -> bytes:
        code = function.__code__
        attributes = {name: part for name, part in vars(function).items() if name != "__wrapped__"}
        return _hash(
            b"function",
            self._digest(code),
            self._digest(function.__defaults__),
            self._digest(function.__kwdefaults__),
            *map(self._digest, function.__closure__ or ()),
            self._globals(code, function.__globals__),
            *self._members(attributes),
        )

    def _code(self, code: types.CodeType) -> bytes:
        self._has_bytecode = True
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return _hash(
            b"code",
            code.co_code,
            code.co_exceptiontable,
            repr((counts, names)).encode(),
            *map(self._digest, constants(code)),
        )

    def _cell(self, cell: types.CellType) -> bytes:
        try:
            content = cell.cell_contents
        except ValueError:  # it is empty
            return _hash(b"empty cell")
        return _hash(b"cell", self._digest(content))

    def _globals(self, code: types.CodeType, namespace: dict[str, Any]) -> bytes:
        parts = []
        seen: set[str] = set()
        for name in sorted(set(global_names(code))):
            if name in namespace:
                value = namespace[name]
                if isinstance(value, types.ModuleType) and self._is_own(value):
                    part = self._module(value, set(names_in(code)), seen)
                else:
                    part = self._global(value)
                parts.append(_hash(name.encode(), part))
            elif not hasattr(builtins, name):
                parts.append(_hash(name.encode(), b"missing"))
        return _hash(*parts)

    def _module(self, module: types.ModuleType, names: set[str], seen: set[str]) -> bytes:
        """A module of the same package, by what code that names it may use of it.

        :param names: all names in the code: which of them are of the module is not seen there.
        :param seen: modules that count already, by name.
        """
        parts = [stable_module_name(module).encode()]
        if module.__name__ in seen:
            return _hash(b"module", *parts)
        seen.add(module.__name__)
        for name in sorted(names & vars(module).keys()):
            value = vars(module)[name]
            is_followed = isinstance(value, types.ModuleType) and self._is_own(value)
            part = self._module(value, names, seen) if is_followed else self._global(value)
            parts.append(_hash(name.encode(), part))
        return _hash(b"module", *parts)

    def _global(self, value: Any) -> bytes:
        replaced = self._replace(value)
        if replaced is not NotImplemented:
            value = replaced
        if isinstance(value, CODE_TYPES) or is_of_module(value) or is_constant(value):
            return self._digest(value)
        if isinstance(value, (functools.partial, functools.partialmethod)):
            given = [*value.args, *value.keywords, *value.keywords.values()]
            parts = [self._global(value.func), *map(self._given, given)]
            return _hash(b"partial", _name_of(type(value)).encode(), *parts)
        if isinstance(value, types.MethodType):
            return _hash(b"method", self._global(value.__func__), self._global(value.__self__))
        if type(value) is tuple:
            return _hash(b"tuple", *map(self._global, value))
        kind = self._kind(type(value))
        if (inner := wrapped(value)) is not None:
            return _hash(b"wrapped", kind, self._global(inner))
        # What may change while the program runs is not what its author wrote.
        content = self._variables.digest(value) if self._exact else b""
        return _hash(b"variable", kind, content)

    def _given(self, value: Any) -> bytes:
        """An argument that is part of the code."""
        is_container = type(value) in (list, tuple, dict, set)
        return self._digest(value) if is_container else self._global(value)

    def _class(self, cls: type) -> bytes:
        members = {
            name: member for name, member in vars(cls).items() if name not in _IGNORED_IN_CLASSES
        }
        # Of a NamedTuple; the function that has them is of no module.
        defaults = self._digest(members.pop("_field_defaults", None))
        bases = map(self._digest, cls.__bases__)
        made_by = b"" if type(cls) is type else self._kind(type(cls))
        return _hash(b"class", made_by, *bases, defaults, *self._members(members))

    def _members(self, members: Mapping[str, Any]) -> list[bytes]:
        return [_hash(name.encode(), self._global(part)) for name, part in sorted(members.items())]


_NO_KWARGS = _hash(b"dict", _hash())


def _of_buffer(value: bytearray | memoryview | pickle.PickleBuffer) -> bytes:
    digest = hashlib.sha256(b"buffer:" + type(value).__name__.encode())
    if isinstance(value, pickle.PickleBuffer):
        value = value.raw()
    # One that is not in one piece is copied.
    is_whole = not isinstance(value, memoryview) or value.c_contiguous
    digest.update(value if is_whole else bytes(value))
    return digest.digest()


def _content(plain: Any) -> bytes:
    if isinstance(plain, bytes):
        return plain
    # Python turns no int of more than 4,300 digits into decimal text.
    text = f"{plain:x}" if type(plain) is int else plain if type(plain) is str else repr(plain)
    return text.encode(errors="surrogatepass")


def _name_of(value: Any) -> str:
    return f"{stable_module_name(value)}.{value.__qualname__}"
