"""Exceptions and values of every kind, on real workers: packed, alone, large, and by reference."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import ray

from airflow_provider_rayworkflow import workflow


class Own(BaseException):
    def __str__(self) -> str:
        raise KeyboardInterrupt


@ray.remote
def raise_kind(ledger, kind):
    ledger.write(kind)
    match kind:
        case "cancel":
            raise asyncio.CancelledError("stopped")
        case "interrupt":
            raise KeyboardInterrupt
        case "end":
            raise GeneratorExit
        case "own":
            raise Own
        case "closed":
            import sys

            sys.stdout.close()
            raise Own


@ray.remote
def join(*values):
    return [type(error).__name__ for _, error in values]


KINDS = ["cancel", "interrupt", "end", "own", "closed"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_any_class_fails_its_task_once(manager, ledger, new_id, kind):
    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(raise_kind.bind(ledger, kind), workflow_id=new_id)
    assert ledger.count(kind) == 1
    assert workflow.get_status(new_id) is workflow.FAILED
    assert isinstance(caught.value.__cause__, BaseException)
    assert "in raise_kind" in str(caught.value)


def test_exceptions_of_any_class_leave_others_in_their_ray_task_alone(manager, ledger):
    catching = raise_kind.options(**workflow.options(catch_exceptions=True))
    kinds = [kind for kind in KINDS * 20 if kind != "closed"]
    names = workflow.run(join.bind(*[catching.bind(ledger, kind) for kind in kinds]))
    expected = {"cancel": "CancelledError", "interrupt": "KeyboardInterrupt"}
    expected |= {"end": "GeneratorExit", "own": "Own"}
    assert names == [expected[kind] for kind in kinds]
    assert {kind: ledger.count(kind) for kind in expected} == dict.fromkeys(expected, 20)


def test_a_worker_that_is_terminated_is_lost_and_its_task_runs_again(manager, ledger, new_id):
    @ray.remote
    def terminated_once():
        if ledger.count("ran") == 0:
            ledger.write("ran")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return "again"

    assert workflow.run(terminated_once.bind(), workflow_id=new_id) == "again"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value):
    depth = 0
    while value:
        value = value[0]
        depth += 1
    return depth


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("depth", [500, 1_000, 30_000])
def test_a_deep_value_goes_from_task_to_task(manager, new_id, depth, checkpoint):
    @ray.remote
    def make():
        return nested(depth)

    @ray.remote
    def measure(value):
        return [depth_of(value), value]

    made = make.options(**workflow.options(checkpoint=checkpoint)).bind()
    found, value = workflow.run(measure.bind(made), workflow_id=new_id)
    assert (found, depth_of(value)) == (depth, depth)
    assert depth_of(workflow.get_output(new_id)[1]) == depth


class NoUnpickling(Exception):
    def __init__(self, *, response):
        super().__init__("a message")


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_value_that_can_not_be_unpickled_fails_the_task_that_made_it(
    manager, ledger, new_id, size
):
    @ray.remote
    def make():
        ledger.write("made")
        return {"failed": [NoUnpickling(response=404)], "more": b"x" * size}

    @ray.remote
    def take(value):
        return value

    with pytest.raises(workflow.WorkflowExecutionError, match="not unpickled") as caught:
        workflow.run(take.bind(make.bind()), workflow_id=new_id)
    assert "make" in caught.value.task_id
    assert ledger.count("made") == 1
    assert workflow.get_status(new_id) is workflow.FAILED
