"""What tasks return: kept so that it can be read again, or its own task fails."""

from __future__ import annotations

import math
import pickle
from collections import namedtuple
from typing import Any

import effects
import numpy as np
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.records import Encoding

# ---- what can be pickled, and not be unpickled


class NoUnpickling(Exception):
    def __init__(self, *, response: int) -> None:
        super().__init__("a message")


class BreaksWhenRead:
    def __init__(self, content: Any = None) -> None:
        self.content = content

    def __setstate__(self, state: Any) -> None:
        raise KeyError("broken")


class BreaksByInterrupt(BreaksWhenRead):
    def __setstate__(self, state: Any) -> None:
        raise KeyboardInterrupt


def unreadable(kind: str) -> Any:
    match kind:
        case "exception in a dict":
            return {"failed": [NoUnpickling(response=404)]}
        case "deep inside":
            return [{"a": ({"b": [BreaksWhenRead()]},)}]
        case "with a large buffer":
            return BreaksWhenRead(np.ones(100_000))
        case "in an array of objects":
            return np.array([BreaksWhenRead()], dtype=object)
        case "interrupt":
            return BreaksByInterrupt()
        case "behind a reference":
            return {"ref": ray.put(Reduced())}
        case "class of its own":
            return type("Made", (BreaksWhenRead,), {})()


class Reduced:
    """Read by ``ray.get``, and not from the storage."""

    def __reduce__(self) -> Any:
        effects.calls.append("pickled")
        return (Reduced, ()) if effects.calls.count("pickled") == 1 else (int, ("no number",))


UNREADABLE = [
    *("exception in a dict", "deep inside", "with a large buffer", "in an array of objects"),
    *("interrupt", "behind a reference", "class of its own"),
]


@ray.remote
def give(kind: str) -> Any:
    effects.calls.append("give")
    return unreadable(kind)


@ray.remote
def take(value: Any) -> Any:
    effects.calls.append("take")
    return None


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("is_last", [True, False], ids=["the output", "taken by another"])
def test_a_value_that_can_not_be_read_again_fails_the_task_that_made_it(workflows, kind, is_last):
    giving = give.options(**workflow.options(task_id="giver")).bind(kind)
    with pytest.raises(workflow.WorkflowExecutionError, match="but not unpickled") as caught:
        workflow.run(giving if is_last else take.bind(giving), workflow_id="w")
    assert caught.value.task_id == "giver"
    assert effects.calls.count("give") == 1
    assert "take" not in effects.calls
    assert workflows.get_status("w") is workflow.FAILED


def test_an_event_that_can_not_be_read_again_fails_its_wait(workflows):
    class Unreadable(workflow.EventListener):
        async def poll_for_event(self):
            return BreaksWhenRead()

    with pytest.raises(workflow.WorkflowExecutionError, match="but not unpickled"):
        workflow.run(workflow.wait_for_event(Unreadable), workflow_id="w")
    assert workflows.get_status("w") is workflow.FAILED


def test_a_failure_whose_exception_can_not_be_read_again_is_told_by_its_text(workflows):
    @ray.remote
    def fails():
        raise NoUnpickling(response=404)

    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(fails.bind(), workflow_id="w")
    assert "NoUnpickling: a message" in str(caught.value.__cause__)
    _, error = workflow.run(fails.options(**workflow.options(catch_exceptions=True)).bind())
    assert "NoUnpickling: a message" in str(error)


class Counted:
    def __setstate__(self, state: Any) -> None:
        effects.calls.append("read")


@pytest.mark.parametrize(
    "value",
    [[1, "a", None] * 1_000, {1: (2, {3})}, np.ones(10), {"a": np.ones((3, 3), order="F")}],
    ids=["list", "builtins", "array", "array in a dict"],
)
def test_plain_data_is_not_read_again_for_a_look(value: Any):
    assert not encode(value).has_objects
    assert encode([value, Counted()]).has_objects


def test_a_look_at_a_value_puts_nothing_into_the_object_store(workflows, monkeypatch):
    put: list[Any] = []

    @ray.remote
    def give_ref():
        ref = ray.put([1])
        monkeypatch.setattr(ray, "put", put.append)
        return {"ref": ref}

    dag = give_ref.bind()
    workflows.run_async(dag, workflow_id="w")
    while workflows.get_status("w").is_active:
        pass
    assert workflows.get_status("w") is workflow.SUCCESSFUL
    assert put == []


# ---- deep and odd ones

Pair = namedtuple("Pair", "a b")


class Text(str):
    pass


class Link:
    def __init__(self, after: Any) -> None:
        self.after = after


class HugeRepr:
    def __repr__(self) -> str:
        return "x" * 50_000_000


def nested(kind: str, depth: int) -> Any:
    value: Any = None
    make = {
        "lists": lambda inner: [inner],
        "dicts": lambda inner: {"a": inner},
        "tuples": lambda inner: (inner,),
        "objects": Link,
    }[kind]
    for _ in range(depth):
        value = make(value)
    return value


def depth_of(value: Any) -> int:
    depth = 0
    while value is not None:
        value = value.after if isinstance(value, Link) else next(iter(_inside(value)))
        depth += 1
    return depth


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


@ray.remote
def make_nested(kind: str, depth: int) -> Any:
    effects.calls.append(depth)
    return nested(kind, depth)


@ray.remote
def measured(value: Any) -> tuple[int, Any]:
    return depth_of(value), value


@pytest.mark.parametrize("depth", [99, 100, 101, 500, 1_000, 3_000, 20_000])
@pytest.mark.parametrize("kind", ["lists", "dicts", "tuples", "objects"])
def test_a_result_may_be_nested_to_any_depth(workflows, kind: str, depth: int):
    found, value = workflow.run(measured.bind(make_nested.bind(kind, depth)), workflow_id="w")
    assert found == depth
    assert depth_of(value) == depth
    assert depth_of(workflow.get_output("w")[1]) == depth
    assert effects.calls == [depth]


def test_a_result_is_nested_a_hundred_thousand_deep():
    encoded = encode(nested("lists", 100_000))
    assert depth_of(encoded.read()) == 100_000


@pytest.mark.parametrize("depth", [99, 100, 101])
def test_json_is_not_nested_deeper_than_readers_can_take(depth: int):
    is_json = encode(nested("lists", depth)).encoding is Encoding.JSON
    assert is_json == (depth <= 100)


def loop() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


ODD = {
    "int beyond 64 bit": 2**100,
    "int of 10,000 digits": 10**10_000,
    "nan": math.nan,
    "infinity": [math.inf, -math.inf],
    "nan as a key": {math.nan: 1},
    "int keys": {1: "a", 2: "b"},
    "keys that collide as text": {1: "a", "1": "b"},
    "bool keys": {True: "a"},
    "None as a key": {None: "a"},
    "str subclass": Text("a"),
    "str subclass as a key": {Text("a"): 1},
    "namedtuple": Pair(1, [2]),
    "tuple": (1, 2),
    "bool": [True, 1, 1.0],
    "bytes": b"a",
    "surrogate": "\ud800",
    "surrogate as a key": {"\ud800": 1},
    "negative zero": -0.0,
}


def exact(value: Any) -> str:
    """What tells values apart that are equal."""
    return f"{type(value)} {pickle.dumps(value)!r}"


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_an_odd_result_comes_back_as_it_was(workflows, value: Any):
    @ray.remote
    def give_it():
        return value

    got = workflow.run(give_it.bind(), workflow_id="w")
    assert exact(got) == exact(value)
    assert exact(workflow.get_output("w")) == exact(value)
    if encode(value).encoding is Encoding.JSON:
        assert exact(encode(value).read()) == exact(value)


@pytest.mark.parametrize("make", [loop, HugeRepr], ids=lambda make: make.__name__)
def test_a_result_that_defies_json_is_kept_as_it_is(workflows, make: Any):
    @ray.remote
    def give_it():
        return make()

    assert type(workflow.run(give_it.bind(), workflow_id="w")) is type(make())
    assert workflows.get_status("w") is workflow.SUCCESSFUL


class Endless:
    def __reduce__(self) -> Any:
        return self.missing

    def __getattr__(self, name: str) -> Any:
        return self.missing


class Cancels:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [Endless, Cancels])
def test_a_value_that_can_not_be_pickled_fails_its_task_once(workflows, kind: type):
    @ray.remote
    def give_it():
        effects.calls.append("ran")
        return kind()

    with pytest.raises(workflow.WorkflowExecutionError, match="can't be stored"):
        workflow.run(give_it.bind(), workflow_id="w")
    assert effects.calls == ["ran"]
    assert workflows.get_status("w") is workflow.FAILED
