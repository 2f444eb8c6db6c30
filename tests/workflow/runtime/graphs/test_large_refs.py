"""A large object behind a reference is stored once, however many tasks take it and wherever it stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import effects
import numpy as np
import pytest
import ray
from ray.dag import InputNode

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

MEGABYTE = 1_000_000


@pytest.fixture
def workflows(tmp_path: Path) -> Iterator[InProcessWorkflows]:
    with effects.fresh(), testing.in_process(str(tmp_path)) as workflows:
        yield workflows


@ray.remote
def size_and(value, number):
    return len(value) + number


@ray.remote
def size_inside(container, number):
    (ref,) = container
    return len(ray.get(ref)) + number


@ray.remote
def total(*numbers):
    effects.note("total")
    return sum(numbers)


@ray.remote
def start(container):
    ref = container["ref"]
    return workflow.continuation(total.bind(*[size_and.bind(ref, i) for i in range(10)]))


def stored_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def as_arguments(ref):
    return total.bind(*[size_and.bind(ref, i) for i in range(10)])


def in_containers(ref):
    return total.bind(*[size_inside.bind([ref], i) for i in range(10)])


def as_input(ref):
    with InputNode() as given:
        return total.bind(*[size_and.bind(given.x, i) for i in range(10)])


@pytest.mark.parametrize("make", [as_arguments, in_containers, as_input])
@pytest.mark.parametrize("kind", [bytes, np.zeros], ids=["bytes", "array"])
def test_a_large_reference_is_stored_once(workflows, tmp_path: Path, make, kind):
    value = kind(MEGABYTE)
    ref = ray.put(value)
    given = {"x": ref} if make is as_input else {}
    assert workflow.run(make(ref), **given) == 10 * MEGABYTE + 45
    one = encode_graph(size_and.bind(value, 0)).to_bytes()
    assert stored_below(tmp_path) < len(one) + 200_000


def test_a_large_reference_in_a_continuation_is_stored_once_more(workflows, tmp_path: Path):
    ref = ray.put(os.urandom(MEGABYTE))
    assert workflow.run(start.bind({"ref": ref})) == 10 * MEGABYTE + 45
    assert stored_below(tmp_path) < 2 * MEGABYTE + 200_000


def test_a_small_reference_stays_an_argument():
    with testing.in_process():
        assert len(encode_graph(as_arguments(ray.put(b"small"))).tasks) == 11
        assert len(encode_graph(as_arguments(ray.put(bytes(MEGABYTE)))).tasks) == 12


def test_a_resume_has_a_large_reference_from_the_stored_graph(workflows):
    effects.broken.add("total")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(as_arguments(ray.put(bytes(MEGABYTE))), workflow_id="w")
    effects.broken.clear()
    assert workflow.resume("w") == 10 * MEGABYTE + 45


def test_an_equal_large_object_is_no_change(workflows):
    workflow.run(as_arguments(ray.put(bytes(MEGABYTE))), workflow_id="w")
    assert effects.calls == ["total"]
    workflow.run(as_arguments(ray.put(bytes(MEGABYTE))), workflow_id="w")
    assert effects.calls == ["total"]
    changed = b"1" + bytes(MEGABYTE)
    workflow.run(as_arguments(ray.put(changed)), workflow_id="w")
    assert effects.calls == ["total", "total"]


def test_a_large_object_is_pickled_once(workflows, monkeypatch):
    class Counted:
        def __init__(self) -> None:
            self.content = bytes(MEGABYTE)

        def __len__(self) -> int:
            return MEGABYTE

        def __reduce__(self):
            effects.calls.append("pickled")
            return Counted, ()

    def pickled(tasks: int) -> int:
        ref = ray.put([Counted(), bytes(MEGABYTE)])
        dag = total.bind(*[size_and.bind(ref, i) for i in range(tasks)])
        effects.calls.clear()
        encode_graph(dag)
        return effects.calls.count("pickled")

    assert pickled(20) == pickled(1)
