"""sleep and wait_for_event: checkpointed, acknowledged, and without a worker that waits."""

import asyncio
import os
import time

import pytest
import ray
from managers import crash_manager
from witness import wait_until

from airflow_provider_rayworkflow import workflow


@ray.remote
def gather(*values):
    return values


@ray.remote
def now(*_):
    return time.time()


class GateListener(workflow.EventListener):
    """The event is that a gate opens."""

    async def poll_for_event(self, ledger, gate, name="event"):
        ledger.write(f"poll {name}")
        while not gate.is_open:
            await asyncio.sleep(0.02)
        return ledger, name

    async def event_checkpointed(self, event):
        ledger, name = event
        ledger.write(f"committed {name}")


def name_of(event):
    return event[1]


# ---- sleep


def test_sleep_takes_its_time_and_has_no_value(manager):
    begun = time.time()
    assert workflow.run(gather.bind(workflow.sleep(1.0))) == (None,)
    assert time.time() - begun >= 1.0


def test_sleep_alone_is_a_workflow(manager, new_id):
    begun = time.time()
    assert workflow.run(workflow.sleep(0.5), workflow_id=new_id) is None
    assert time.time() - begun >= 0.5
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL


def test_sleep_begins_when_it_runs_and_not_when_it_is_written(manager):
    dag = now.bind(workflow.sleep(1.0))
    written = time.time()
    wait_until(lambda: time.time() - written > 1.2)
    begun = time.time()
    assert workflow.run(dag) - begun >= 1.0


def test_a_resumed_sleep_waits_only_for_the_rest(manager, new_id):
    begun = time.time()
    workflow.run_async(workflow.sleep(8.0), workflow_id=new_id)
    wait_until(lambda: time.time() - begun > 1.5)
    workflow.suspend(new_id)
    wait_until(lambda: time.time() - begun > 7.5)
    whole = workflow.run_async(workflow.sleep(8.0), workflow_id=f"{new_id}.whole")
    resumed = workflow.resume_async(new_id)
    assert ray.wait([whole, resumed])[0] == [resumed]
    assert time.time() - begun >= 8.0
    workflow.cancel(f"{new_id}.whole")


@pytest.mark.timeout(120)
def test_many_sleeps_at_once_take_the_time_of_one(manager):
    # One after the other, they would take longer than the test may.
    assert workflow.run(gather.bind(*(workflow.sleep(3.0) for _ in range(60)))) == (None,) * 60


# ---- events


def test_a_workflow_waits_for_an_event_and_gets_it(manager, new_id, ledger, gate):
    @ray.remote
    def take(event, suffix):
        return name_of(event) + suffix

    event = workflow.wait_for_event(GateListener, ledger, gate, name="door")
    ref = workflow.run_async(take.bind(event, "!"), workflow_id=new_id)
    ledger.wait_for("poll door")
    assert workflow.get_status(new_id) is workflow.RUNNING
    assert ray.wait([ref], timeout=0.5)[0] == []
    gate.open()
    assert ray.get(ref) == "door!"
    assert ledger.lines() == ["poll door", "committed door"]


def test_an_event_alone_is_a_workflow(manager, new_id, ledger, gate):
    ref = workflow.run_async(
        workflow.wait_for_event(GateListener, ledger, gate), workflow_id=new_id
    )
    ledger.wait_for("poll event")
    assert workflow.get_status(new_id) is workflow.RUNNING
    gate.open()
    assert name_of(ray.get(ref)) == "event"
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL


def test_two_events_are_waited_for_at_once(manager, ledger, gate):
    events = [workflow.wait_for_event(GateListener, ledger, gate, name) for name in "ab"]
    ref = workflow.run_async(gather.bind(*events))
    ledger.wait_for("poll a")
    ledger.wait_for("poll b")
    gate.open()
    assert [name_of(event) for event in ray.get(ref)] == ["a", "b"]


@pytest.mark.parametrize("event_first", [True, False], ids=["event first", "task first"])
def test_an_event_and_a_task_go_on_at_once(manager, ledger, gate, event_first):
    @ray.remote
    def open_when_polled():
        ledger.wait_for("poll event")
        gate.open()
        return "task"

    event, task = workflow.wait_for_event(GateListener, ledger, gate), open_when_polled.bind()
    values = workflow.run(gather.bind(*((event, task) if event_first else (task, event))))
    assert values[1 if event_first else 0] == "task"


def test_an_event_in_a_continuation(manager, ledger, gate):
    @ray.remote
    def start():
        return workflow.continuation(workflow.wait_for_event(GateListener, ledger, gate, "inner"))

    gate.open()
    assert name_of(workflow.run(start.bind())) == "inner"
    assert ledger.count("committed inner") == 1


def test_a_listener_knows_for_whom_it_waits(manager, new_id):
    class Who(workflow.EventListener):
        async def poll_for_event(self):
            context = workflow.get_context()
            return context.workflow_id, context.task_id

    workflow_id, task_id = workflow.run(workflow.wait_for_event(Who), workflow_id=new_id)
    assert workflow_id == new_id
    assert "get_message" in task_id


def test_a_listener_that_blocks_holds_up_no_other(manager, ledger, gate, tmp_path):
    class Blocks(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("blocks")
            gate.wait()

    blocked = workflow.run_async(workflow.wait_for_event(Blocks))
    ledger.wait_for("blocks")
    assert workflow.run(workflow.sleep(0.1)) is None
    gate.open()
    ray.get(blocked)


def test_a_listener_that_fails_fails_the_workflow_and_is_asked_again(manager, new_id, gate):
    class Fails(workflow.EventListener):
        async def poll_for_event(self):
            if not gate.is_open:
                raise ConnectionError("no news")
            return "news"

    with pytest.raises(workflow.WorkflowExecutionError, match="no news") as caught:
        workflow.run(workflow.wait_for_event(Fails), workflow_id=new_id)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert workflow.get_status(new_id) is workflow.FAILED
    gate.open()
    assert workflow.resume(new_id) == "news"


@pytest.mark.slow
def test_a_thousand_workflows_that_wait_or_sleep_hold_no_worker_and_no_cpu(
    fresh_manager, ledger, gate
):
    class SlowlyPolled(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("polls")
            while not gate.is_open:
                await asyncio.sleep(1)
            return "open"

    fresh_manager()
    event = workflow.wait_for_event(SlowlyPolled)
    waiting = [workflow.run_async(event, workflow_id=f"waits.{n}") for n in range(500)]
    for number in range(500):
        workflow.run_async(workflow.sleep(3_600), workflow_id=f"sleeps.{number}")
    ledger.wait_for("polls", times=500)
    assert len(workflow.list_all("RUNNING")) == 1_000
    wait_until(lambda: ray.available_resources().get("CPU") == 4.0)
    assert workflow.run(now.options(num_cpus=4).bind()) > 0
    gate.open()
    assert ray.get(waiting) == ["open"] * 500
    assert {workflow.get_status(f"sleeps.{number}") for number in range(500)} == {"RUNNING"}


# ---- events and ends of all kinds


@pytest.mark.parametrize("stop", [workflow.cancel, workflow.suspend], ids=["cancel", "suspend"])
def test_a_stopped_workflow_does_not_listen_any_more(manager, new_id, ledger, gate, stop):
    class Tells(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("polled")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                ledger.write("stopped")
                raise

    workflow.run_async(workflow.wait_for_event(Tells), workflow_id=new_id)
    ledger.wait_for("polled")
    stop(new_id)
    ledger.wait_for("stopped")
    expected = workflow.CANCELED if stop is workflow.cancel else workflow.RESUMABLE
    assert workflow.get_status(new_id) is expected


def test_after_the_checkpoint_an_event_is_not_polled_again(manager, new_id, ledger, gate):
    class Once(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("poll")
            return "event"

        async def event_checkpointed(self, event):
            ledger.write(f"committed {event}")
            if not gate.is_open:
                raise ConnectionError("can't acknowledge")

    with pytest.raises(workflow.WorkflowExecutionError, match="can't acknowledge"):
        workflow.run(workflow.wait_for_event(Once), workflow_id=new_id)
    gate.open()
    assert workflow.resume(new_id) == "event"
    assert ledger.lines() == ["poll", "committed event", "committed event"]


def test_a_crash_while_polling_has_it_polled_again(manager, ledger, crash):
    class Crashes(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("poll")
            crash.pass_by()
            return "event"

        async def event_checkpointed(self, event):
            ledger.write("committed")

    crash.arm()
    assert workflow.run(workflow.wait_for_event(Crashes)) == "event"
    assert ledger.lines() == ["poll", "poll", "committed"]


def test_a_crash_while_committing_has_it_committed_again_and_not_polled(manager, ledger, crash):
    class Crashes(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("poll")
            return "event"

        async def event_checkpointed(self, event):
            ledger.write("committed")
            crash.pass_by()

    crash.arm()
    assert workflow.run(workflow.wait_for_event(Crashes)) == "event"
    assert ledger.lines() == ["poll", "committed", "committed"]


def test_a_crash_of_one_listener_disturbs_no_other_workflow(manager, ledger, gate, crash):
    class Crashes(workflow.EventListener):
        async def poll_for_event(self):
            ledger.write("crash")
            crash.pass_by()
            return "event"

    calm = workflow.run_async(workflow.wait_for_event(GateListener, ledger, gate, "calm"))
    ledger.wait_for("poll calm")
    crash.arm(times=2)
    assert workflow.run(workflow.wait_for_event(Crashes)) == "event"
    ledger.wait_for("poll calm", times=2)
    gate.open()
    assert name_of(ray.get(calm)) == "calm"
    assert ledger.count("committed calm") == 1


def test_a_listener_is_asked_again_after_a_crash_of_the_manager(fresh_manager, ledger, gate):
    root = fresh_manager()
    ref = workflow.run_async(workflow.wait_for_event(GateListener, ledger, gate), workflow_id="w")
    ledger.wait_for("poll event")
    crash_manager(root)
    ledger.wait_for("poll event", times=2)
    gate.open()
    assert name_of(ray.get(ref)) == "event"
    assert ledger.count("committed event") == 1


def test_the_timer_listener_waits_until_a_time(manager):
    at = time.time() + 1.0
    assert workflow.run(now.bind(workflow.wait_for_event(workflow.TimerListener, at))) >= at


def test_events_run_in_a_process_of_their_own(manager):
    class Pid(workflow.EventListener):
        async def poll_for_event(self):
            return os.getpid()

    first, second = workflow.run(
        gather.bind(workflow.wait_for_event(Pid), workflow.wait_for_event(Pid))
    )
    assert first == second != os.getpid()
