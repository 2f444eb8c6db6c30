"""Waits share what they wait with, and what the machine lacks is no failure of a workflow."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
import threading

import effects
import pytest
import ray
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.execution.thread_pool import ThreadPool
from airflow_provider_rayworkflow.workflow.runtime.worker.events import (
    get_message,
    message_committed,
)

MANY = 1_000


@ray.remote
def count(*events):
    return len(events)


class Waits(workflow.EventListener):
    async def poll_for_event(self, until: int) -> int:
        # Counted in a module: what the class itself holds is set anew when it is unpickled again.
        effects.calls.append("waits")
        while len(effects.calls) < until:
            await asyncio.sleep(0.05)
        return threading.active_count()


@ray.remote
def most(*numbers):
    return max(numbers)


def wait_with_few_descriptors() -> None:
    """In a process of its own, whose limit stays as it is set here."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with testing.in_process() as workflows:
        sleeps = [workflow.sleep(0.5) for _ in range(MANY)]
        assert workflows.run(count.bind(*sleeps)) == MANY
        events = [workflow.wait_for_event(Waits, MANY) for _ in range(MANY)]
        # All wait at the same time.
        assert workflows.run(most.bind(*events)) < 150
        own = [workflows.run_async(workflow.sleep(0.5)) for _ in range(100)]
        assert ray.get(own) == [None] * 100


@pytest.mark.timeout(600)
def test_a_thousand_waits_need_no_thread_and_no_file_descriptor_each():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__], check=True, timeout=600, env=environment)


def test_listeners_that_block_hold_up_neither_others_nor_each_other(workflows):
    class Blocks(workflow.EventListener):
        async def poll_for_event(self, name: str) -> str:
            effects.calls.append(name)
            effects.gate.wait()
            return name

    class Queries(workflow.EventListener):
        async def poll_for_event(self) -> str:
            await asyncio.sleep(0)
            return "answer"

    names = ["first", "second", "third"]
    blocked = [workflow.run_async(workflow.wait_for_event(Blocks, name)) for name in names]
    wait_until(lambda: sorted(effects.calls) == sorted(names))
    assert workflow.run(workflow.wait_for_event(Queries)) == "answer"
    assert workflow.run(workflow.sleep(0)) is None
    effects.gate.set()
    assert ray.get(blocked) == names


def test_a_listener_that_blocks_to_be_made_holds_up_no_other(workflows):
    class Slow(workflow.EventListener):
        def __init__(self) -> None:
            effects.calls.append("made")
            effects.gate.wait()

        async def poll_for_event(self) -> str:
            return "slow"

    slow = [workflow.run_async(workflow.wait_for_event(Slow)) for _ in range(30)]
    wait_until(lambda: effects.calls.count("made") == 30)
    assert workflow.run(workflow.sleep(0)) is None
    effects.gate.set()
    assert ray.get(slow) == ["slow"] * 30


@pytest.mark.parametrize("stop", ["cancel", "suspend"])
def test_a_wait_that_is_stopped_is_canceled_in_its_loop(workflows, stop: str):
    class Notes(workflow.EventListener):
        async def poll_for_event(self) -> None:
            effects.calls.append("waits")
            try:
                await asyncio.sleep(3600)
            finally:
                effects.calls.append("canceled")

    workflow.run_async(workflow.wait_for_event(Notes), workflow_id="w")
    wait_until(lambda: effects.calls == ["waits"])
    getattr(workflow, stop)("w")
    wait_until(lambda: effects.calls == ["waits", "canceled"])
    expected = {"cancel": workflow.CANCELED, "suspend": workflow.RESUMABLE}[stop]
    assert workflows.get_status("w") is expected


def test_a_loop_ends_with_the_last_wait_in_it(workflows):
    class Queries(workflow.EventListener):
        async def poll_for_event(self) -> int:
            return 1

    assert workflow.run(workflow.wait_for_event(Queries)) == 1
    wait_until(lambda: not any(t.name.startswith("workflow events") for t in threading.enumerate()))


def test_a_listener_knows_for_whom_it_waits_in_both_calls(workflows):
    class Knows(workflow.EventListener):
        def __init__(self) -> None:
            effects.calls.append(workflow.get_context().workflow_id)

        async def poll_for_event(self) -> None:
            await asyncio.sleep(0)
            effects.calls.append(workflow.get_context().workflow_id)

        async def event_checkpointed(self, event: None) -> None:
            effects.calls.append(workflow.get_context().workflow_id)

    workflow.run(workflow.wait_for_event(Knows), workflow_id="w")
    assert effects.calls == ["w"] * 4


def test_outside_of_a_workflow_an_event_is_waited_for_in_its_plain_task():
    class Queries(workflow.EventListener):
        async def poll_for_event(self, what: str) -> str:
            await asyncio.sleep(0)
            return what

    assert get_message(Queries, "answer") == "answer"
    assert message_committed(Queries, "answer") == "answer"


# ---- what the machine lacks

LACKS = [
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.ENFILE, os.strerror(errno.ENFILE)),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    MemoryError(),
    RuntimeError("can't start new thread"),
]
by_lack = pytest.mark.parametrize("number", range(len(LACKS)), ids=[repr(e) for e in LACKS])


@by_lack
def test_a_resource_that_a_listener_lacks_in_a_process_of_many_is_a_system_error(workflows, number):
    class Lacks(workflow.EventListener):
        async def poll_for_event(self) -> str:
            effects.calls.append("asked")
            if not effects.gate.is_set():
                raise LACKS[number]
            return "event"

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(workflow.wait_for_event(Lacks), workflow_id="w")
    assert workflows.get_status("w") is workflow.RESUMABLE
    effects.gate.set()
    assert workflow.resume("w") == "event"


def test_waits_that_can_not_have_a_loop_are_a_failure_of_the_system(workflows, monkeypatch):
    def no_loop():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", no_loop)
    with pytest.raises(workflow.WorkflowExecutionError, match="Too many open files"):
        workflow.run(workflow.wait_for_event(Waits, 0), workflow_id="w")
    assert workflows.get_status("w") is workflow.RESUMABLE
    assert workflow.run(workflow.sleep(0)) is None
    monkeypatch.undo()
    assert workflow.resume("w") > 0


def test_tasks_that_can_not_have_a_thread_are_a_failure_of_the_system(workflows, monkeypatch):
    assert workflow.run(count.bind()) == 0  # the threads for storage are there
    start = threading.Thread.start

    def no_thread(self: threading.Thread) -> None:
        if self.name.startswith("workflow task"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(workflow.WorkflowExecutionError, match="can't start new thread"):
        workflow.run(count.bind(1), workflow_id="w")
    assert workflows.get_status("w") is workflow.RESUMABLE
    monkeypatch.undo()
    assert workflow.resume("w") == 1


def test_no_memory_to_store_a_value_is_a_failure_of_the_system(workflows):
    class Large:
        def __reduce__(self):
            if effects.gate.is_set():
                return int, ()
            raise MemoryError

    @ray.remote(max_retries=0)
    def make():
        return Large()

    with pytest.raises(workflow.WorkflowExecutionError, match="MemoryError"):
        workflow.run(make.bind(), workflow_id="w")
    assert workflows.get_status("w") is workflow.RESUMABLE
    effects.gate.set()
    assert workflow.resume("w") == 0


def test_a_pool_goes_on_with_the_threads_that_it_has(monkeypatch):
    gate = threading.Event()
    with ThreadPool(4) as pool:
        first = pool.submit(gate.wait)

        def no_thread(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", no_thread)
        others = [pool.submit(int, number) for number in range(10)]
        gate.set()
        assert [other.result(60) for other in others] == list(range(10))
        assert first.result(60)
        monkeypatch.undo()
    gc.collect()


if __name__ == "__main__":
    wait_with_few_descriptors()
