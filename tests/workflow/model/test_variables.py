"""Variables that code names: what they hold counts for results that other workflows take, as far as it can be told."""

from __future__ import annotations

import threading
import types

import pytest

from airflow_provider_rayworkflow.workflow.model import fingerprints

STEPS = """
import collections
import logging
import threading
import numpy as np

def helper():
    return 1

class Model:
    weights = [2]
    def __init__(self, size):
        self.size = size
        self.lock = threading.Lock()
    def __call__(self):
        return self.size

LISTED = [3, {"deep": (4, [5])}]
MIXED = {"a": 6, 7: "b"}
CHOSEN = {80, 81}
ARRAY = np.array([9, 10])
REGISTRY = {"helper": [helper]}
MODEL = Model(11)
BESIDE_A_LOCK = [threading.Lock(), 12]
LATER = collections.OrderedDict(a=13)

def task(x):
    return LISTED, MIXED, CHOSEN, ARRAY, REGISTRY, MODEL(), BESIDE_A_LOCK, LATER, Model.weights
"""


def module(source: str) -> types.SimpleNamespace:
    namespace: dict = {"__name__": "pipeline.steps"}
    exec(compile(source, "/steps.py", "exec"), namespace)
    return types.SimpleNamespace(**namespace)


def code(function, *, exact: bool = True) -> str:
    return fingerprints.of_code(function, replace=lambda value: NotImplemented, exact=exact)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 1", "return 100"),
        ("[2]", "[200]"),
        ("[3,", "[300,"),
        ("[5]", "[500]"),
        ('"a": 6', '"a": 600'),
        ("7:", "700:"),
        ("{80", "{800"),
        ("array([9", "array([900"),
        ("Model(11)", "Model(1100)"),
        ("), 12", "), 1200"),
    ],
)
def test_what_a_variable_holds_counts(old: str, new: str):
    assert STEPS.count(old) == 1
    changed = STEPS.replace(old, new)
    before = code(module(STEPS).task)
    assert before == code(module(STEPS).task) != ""
    assert code(module(changed).task) != before


def test_a_variable_of_a_foreign_class_counts_by_its_class_alone():
    assert code(module(STEPS).task) == code(module(STEPS.replace("a=13", "a=14")).task)


def test_what_variables_hold_is_no_change_of_code():
    changed = STEPS.replace("[3,", "[30,").replace("Model(11)", "Model(110)")
    assert code(module(STEPS).task, exact=False) == code(module(changed).task, exact=False) != ""


def test_a_container_that_the_program_fills_is_no_part_of_the_code():
    steps = module("runs = []\ndef task(x):\n    runs.append(x)")
    before = code(steps.task)
    steps.task(1)
    assert code(steps.task) == before


def test_what_a_program_makes_of_a_variable_counts():
    steps = module("settings = {'a': 1}\ndef task(x):\n    return settings")
    before = code(steps.task)
    steps.settings["a"] = 2
    assert code(steps.task) != before


def test_a_variable_that_has_itself_counts():
    source = "a = [1]\na.append(a)\ndef task(x):\n    return a"
    assert code(module(source).task) == code(module(source).task)
    assert code(module(source).task) != code(module(source.replace("[1]", "[2]")).task)


def test_what_stands_in_a_variable_many_times_is_looked_at_once():
    source = "a = [threading]\nfor _ in range(200):\n    a = [a, a]\ndef task(x):\n    return a"
    namespace: dict = {"__name__": "pipeline.steps", "threading": threading}
    exec(source, namespace)
    assert code(namespace["task"]) != ""
