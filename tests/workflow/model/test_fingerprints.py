"""Fingerprints: equal for equal content in any process, and different where an author would say so."""

from __future__ import annotations

import enum
import functools
import os
import re
import subprocess
import sys
import threading
import types
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import pandas as pd
import pytest

from airflow_provider_rayworkflow.workflow.model import fingerprints
from airflow_provider_rayworkflow.workflow.model.fingerprints import (
    Comparison,
    InstanceOf,
    combine,
    compare,
)


def keep(value):
    return NotImplemented


def of(value) -> str:
    return fingerprints.of_value(value, replace=keep)[0]


def code(function) -> str:
    return fingerprints.of_code(function, replace=keep)


@dataclass
class Point:
    x: int
    tags: set[str]


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


def cyclic(last):
    items = [1]
    items.append({"self": items, "last": last})
    return items


A_PART = ["part"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([A_PART, A_PART], [["part"], ["part"]]),
        ("".join(["te", "xt"]), "text"),
        (Point(1, {"a", "b"}), Point(1, {"b", "a"})),
        (cyclic(1), cyclic(1)),
        (np.arange(6), np.arange(6)),
        (lambda x: x + 1, lambda x: x + 1),
        (partial(pow, 2), partial(pow, 2)),
        (Slotted(1), Slotted(1)),
        (Counter("aab"), Counter("baa")),
        ([10**5000], [10**5000]),
        ("\ud800", "\ud800"),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]})),
    ],
)
def test_equal_content_has_one_fingerprint(one, other):
    assert of(one) == of(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        ("a", b"a"),
        ([1, 2], (1, 2)),
        ([1, [2]], [1, 2]),
        ({"a": 1}, {"a": 2}),
        ({"a": "b"}, {"b": "a"}),
        ({1, 2}, {1, 3}),
        ({1, 2}, frozenset({1, 2})),
        (Point(1, {"a"}), Point(1, {"b"})),
        (cyclic(1), cyclic(2)),
        (np.arange(6), np.arange(7)),
        (np.arange(6), np.arange(6, dtype="int32")),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (lambda x: x + 1, lambda x: x + 2),
        (partial(pow, 2), partial(pow, 3)),
        (Color.RED, Color.BLUE),
        (date(2020, 1, 1), date(2020, 1, 2)),
        (Slotted(1), Slotted(2)),
        (OrderedDict(a=1), {"a": 1}),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
        ([OrderedDict(a=1, b=2)], [OrderedDict(b=2, a=1)]),
        (pow, print),
        ([].append, {}.update),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
    ],
)
def test_other_content_has_another_fingerprint(one, other):
    assert of(one) != of(other)
    assert "" not in (of(one), of(other))


def test_a_value_without_content_to_compare_is_not_known():
    assert of(threading.Lock()) == ""
    assert of([1, threading.Lock()]) == ""
    assert compare("", of(1)) is compare(of(1), "") is Comparison.UNKNOWN


def test_a_named_function_among_arguments_counts_by_its_name_and_is_reported():
    fingerprint, named = fingerprints.of_value([cyclic, Point], replace=keep)
    assert named == [cyclic, Point]
    assert fingerprint == of([cyclic, Point])
    assert fingerprint != of([cyclic, Color])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="a dict"),
        pytest.param([{"a": 1, "b": 2}], [{"b": 2, "a": 1}], id="in a list"),
        pytest.param([{"a": 1, "b": 2}] * 50, [{"b": 2, "a": 1}] * 50, id="records"),
        pytest.param({1: 1, "b": 2}, {"b": 2, 1: 1}, id="keys that are not sorted"),
        pytest.param(Counter("ab"), Counter("ba"), id="a subclass"),
        pytest.param({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}, id="nested"),
    ],
)
def test_the_order_of_dicts_counts_where_that_is_wanted(one, other):
    def ordered(value) -> str:
        return fingerprints.of_call((value,), {}, replace=keep, exact=True)[0]

    assert of(one) == of(other)
    assert ordered(one) == ordered(one) != ordered(other)


FIRST = '''
LIMIT = 3
cache = {}

def helper(x):
    return x * 2

class Scale:
    factor = 2
    def apply(self, x):
        return x * self.factor

def task(x, y=1):
    """What it does."""
    def inner(z):
        """Inside."""
        return z in {"a", "b", "c"}
    return helper(x) + y + LIMIT + len(cache), inner(x), Scale().apply(x)
'''


def module(source: str, name: str = "pipeline.steps") -> types.SimpleNamespace:
    namespace: dict = {"__name__": name}
    exec(compile(source, f"/{len(source)}.py", "exec"), namespace)
    return types.SimpleNamespace(**namespace)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "\n\n# moved\nLIMIT = 3"),
        ('"""What it does."""', '"""Says it better."""'),
        ('"""Inside."""', '"""Inside of it."""'),
        ("return helper(x)", "# a comment\n    return helper(x)"),
        ("cache = {}", "cache = {1: 2}"),  # what changes while it runs
    ],
)
def test_code_that_does_the_same_is_the_same(old: str, new: str):
    assert old in FIRST
    assert code(module(FIRST).task) == code(module(FIRST.replace(old, new)).task) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("return x * 2", "return x * 3"),
        ("y=1", "y=2"),
        ("+ y", "- y"),
        ('"c"', '"d"'),
        ("factor = 2", "factor = 3"),
        ("return x * self.factor", "return x + self.factor"),
        ("helper(x) + y", "len(x) + y"),
        ("def helper(x):", "import functools\n@functools.cache\ndef helper(x):"),
    ],
)
def test_code_that_does_something_else_is_another(old: str, new: str):
    assert old in FIRST
    before, after = code(module(FIRST).task), code(module(FIRST.replace(old, new)).task)
    assert compare(before, after) is Comparison.CHANGED


BEHIND = """
import functools
import types
import operator

def doubled(x, y=0, *, options=()):
    return x * 2

class Scale:
    def __init__(self, factor=2):
        self.factor = factor
    def applied(self, x):
        return x * self.factor

class Steps:
    @functools.cached_property
    def first(self):
        return 1
    @functools.lru_cache
    def second(self):
        return 2
    @staticmethod
    @functools.cache
    def third():
        return 3
    def fourth(self, x):
        return 4 + x
    fifth = functools.partialmethod(fourth, 5)

class Decorated:
    def __init__(self, function):
        functools.update_wrapper(self, function)
    def __call__(self):
        return self.__wrapped__()

@Decorated
def decorated():
    return 6

@functools.lru_cache(maxsize=None)
def cached():
    return 7

preset = functools.partial(doubled, 8, options=[9])
bound = Scale().applied
chosen = operator.add
common = types.ModuleType("pipeline.common")
common.deep = types.ModuleType("pipeline.common.deep")
common.deep.common = common
exec("def h():\\n    return 10\\ndef unused():\\n    return 11", vars(common.deep))

def task(x, steps=Steps):
    return [common.deep.h() for _ in "a"], preset(), bound(1), cached(), decorated(), chosen(1, 2)
"""


def test_code_behind_caches_partials_and_modules_is_the_same_in_two_imports():
    assert code(module(BEHIND).task) == code(module(BEHIND).task) != ""
    other = module(BEHIND.replace("return 11", "return 12"))  # the task does not name it
    assert code(module(BEHIND).task) == code(other.task)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x * 2", "return x * 3"),
        ("doubled, 8", "doubled, 80"),
        ("options=[9]", "options=[90]"),
        ("return x * self.factor", "return x + self.factor"),
        ("return 6", "return 60"),
        ("return 7", "return 70"),
        ("operator.add", "operator.sub"),
        ("return 10", "return 100"),
    ],
)
def test_code_behind_caches_partials_and_modules_counts(old: str, new: str):
    assert old in BEHIND
    before, after = (code(module(source).task) for source in (BEHIND, BEHIND.replace(old, new)))
    assert compare(before, after) is Comparison.CHANGED


@pytest.mark.parametrize("number", ["1", "2", "3", "4", "5"])
def test_members_of_a_class_behind_caches_and_partials_count(number: str):
    old = "fourth, 5" if number == "5" else f"return {number}"
    changed = module(BEHIND.replace(old, f"{old}0"))
    assert compare(code(module(BEHIND).Steps), code(changed.Steps)) is Comparison.CHANGED


OBJECTS = """
import functools
import json
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import NamedTuple

class Meta(type):
    def made(cls):
        return 1

class Base(metaclass=Meta):
    def kept(self):
        return 2

class Helper(Base):
    pass

class Field:
    def __get__(self, owner, kind):
        return 3

class Decorator:
    def __init__(self, function):
        functools.update_wrapper(self, function)
    def __call__(self):
        return 4

@Decorator
def decorated():
    return 0

class Point(NamedTuple):
    x: int = 5

class Own(property):
    def __get__(self, owner, kind=None):
        return 6

class Steps:
    field = Field()
    own = Own()
    @functools.singledispatchmethod
    def chosen(self, x):
        return 7

def first():
    return 8

def marked():
    return marked.size

marked.size = 9
wrapped = functools.wraps(json.dumps)(lambda *_: 10)
helper = Helper()
functions = (first, [])
constants = (range(11), timedelta(12), Decimal(13), PurePosixPath("14"), re.compile("15"))
joined = "16".join

def task(x, other=Helper()):
    return helper, decorated, Point, Steps, functions, marked, wrapped, constants, joined

def maker(held):
    return lambda: held.kept()

closure = maker(helper)
"""


@pytest.mark.parametrize("number", [str(number) for number in range(1, 17)])
def test_code_behind_objects_and_in_constants_counts(number: str):
    changed = re.sub(rf"(?<!\d){number}(?!\d)", "100", OBJECTS)
    before = code(module(OBJECTS).task)
    assert before == code(module(OBJECTS).task) != ""
    assert compare(before, code(module(changed).task)) is Comparison.CHANGED


def test_the_class_of_an_object_in_a_closure_counts():
    changed = OBJECTS.replace("return 2", "return 20")
    assert code(module(OBJECTS).closure) != code(module(changed).closure)


def test_a_function_with_the_name_of_another_one_counts_by_its_code():
    def named(number: int):
        return functools.wraps(os.path.join)(lambda: number)

    assert of(named(1)) != of(named(2))
    assert of(os.path.join) != of(named(1))


def test_what_a_function_among_arguments_uses_of_its_module_counts_or_is_reported():
    def used(number: int):
        common = types.ModuleType("pipeline.common")
        exec(f"def made(): return {number}\nclass Made: pass\nmade_before = Made()", vars(common))
        steps = module("task = lambda: (common.made(), common.made_before)")
        steps.task.__globals__["common"] = common
        return vars(common), fingerprints.of_value(steps.task, replace=keep)[1]

    common, named = used(1)
    assert named == [common["made"], InstanceOf(common["Made"])]


def test_a_function_behind_a_cache_in_a_closure_counts():
    def make(number):
        @functools.cache
        def inner():
            return number

        return lambda: inner()

    assert code(make(1)) == code(make(1))
    assert code(make(1)) != code(make(2))


def test_many_modules_that_import_each_other_are_looked_at_once():
    modules = {f"m{number}": types.ModuleType(f"pipeline.m{number}") for number in range(30)}
    for one in modules.values():
        vars(one).update(modules)
    task = module("def task():\n    return " + ", ".join(modules)).task
    task.__globals__.update(modules)
    assert code(task) != ""


def test_the_classes_of_objects_among_arguments_are_reported():
    _, named = fingerprints.of_value([Point(1, set()), [Point(2, set())]], replace=keep)
    assert named == [InstanceOf(Point)]


def test_the_name_that_airflow_gives_a_dag_file_does_not_matter():
    names = [f"unusual_prefix_{digit * 40}_flights" for digit in "ab"]
    one, other = (module(FIRST, name) for name in names)
    assert code(one.task) == code(other.task)
    assert of([one.helper, one.Scale()]) == of([other.helper, other.Scale()])


def test_code_of_other_packages_counts_by_its_name():
    source = "from elsewhere import clean\ndef task(x):\n    return clean(x)"
    fingerprint = []
    for body in ("return x", "return x + 1"):
        other = module(f"def clean(x):\n    {body}", "elsewhere")
        user = module("def task(x):\n    return clean(x)", "pipeline")
        user.task.__globals__["clean"] = other.clean
        fingerprint.append(code(user.task))
    assert fingerprint[0] == fingerprint[1]
    assert "elsewhere" in source


def test_a_closure_counts_by_what_it_holds():
    def make(value):
        return lambda: value

    assert code(make(1)) == code(make(1))
    assert code(make(1)) != code(make(2))
    assert code(make({"a", "b"})) == code(make({"b", "a"}))
    assert code(make(threading.Lock())) == ""


def test_functions_that_call_each_other_have_fingerprints():
    source = "def task(x):\n    return other(x - 1)\ndef other(x):\n    return task(x {})"
    assert code(module(source.format("+ 1")).task) == code(module(source.format("+ 1")).task)
    assert code(module(source.format("+ 1")).task) != code(module(source.format("+ 2")).task)


def test_bytecode_of_two_versions_of_python_is_not_compared():
    assert compare("aa@3.11", "bb@3.12") is Comparison.UNKNOWN
    assert compare("aa@3.11", "bb@3.11") is Comparison.CHANGED
    assert compare("aa@3.11", "bb") is Comparison.CHANGED
    assert compare("aa@3.11", "aa@3.11") is Comparison.SAME
    assert combine("aa@3.11", "bb").endswith("@3.11")
    assert combine("aa", "") == ""


PROGRAM = """
from airflow_provider_rayworkflow.workflow.model import fingerprints
keep = lambda value: NotImplemented
names = {"a", "b", "c", "d", "e"}
def task(x, known=frozenset(names)):
    return x in {"v", "w", "x", "y", "z"} or x in names or x in known
value = {"names": names, "function": lambda x: x in {"p", "q", "r", "s"}}
value["rows"] = [{name: n for name in names} | {"tags": {f"{n}", "a", 1}} for n in range(600)]
value["many"] = set(map(str, range(1_000))), frozenset((name, 1) for name in names), [0.5] * 600
print(fingerprints.of_value(value, replace=keep)[0], fingerprints.of_code(task, replace=keep))
"""


def test_processes_with_different_hash_seeds_agree():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", "\n" * seed + PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(outputs) == 1
    assert all(len(part) > 16 for part in outputs.pop().split())
