"""What waits in the triggerer: one look at the storage for all, and never on the event loop."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import pytest
from change_log_rows import write_with_log
from dag_test import connection
from sample_records import lease, status_record
from waiting import until

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger, poll
from airflow_provider_rayworkflow.triggers.workflow import TriggerTimes
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import Entry, WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, StopRequest

MANAGER = "manager"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "storage"
    monkeypatch.setenv("AIRFLOW_CONN_WAITED", connection(storage=str(root)))
    return root


@pytest.fixture
def store(root: Path) -> WorkflowStore:
    """A storage with a manager that is alive."""
    store = WorkflowStore(open_store(str(root)))
    store.leases.write(lease(MANAGER, ttl_s=3600))
    return store


def write(
    store: WorkflowStore, workflow_id: str, status: Status, *, number: int = 0, **more: int
) -> None:
    write_all(store, [workflow_id], status, number=number, **more)


def write_all(store: WorkflowStore, workflow_ids: list[str], status: Status, **more: int) -> None:
    write_with_log(
        store,
        *(
            status_record(status, workflow_id, manager_id=MANAGER, **more)
            for workflow_id in workflow_ids
        ),
    )


def trigger(workflow_id: str = "w", **changes: object) -> RayWorkflowTrigger:
    given = {
        "workflow_id": workflow_id,
        "statuses": ["NONE", "SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED"],
        "ray_workflow_conn_id": "waited",
        "poll_interval_s": 0.01,
        "carried": {"takeovers": 1},
    }
    return RayWorkflowTrigger(**given | changes)


async def fired(waiting: RayWorkflowTrigger) -> dict:
    events = [event.payload async for event in waiting.run()]
    assert len(events) == 1
    return events[0]


class Counted:
    """Counts the listings of the local storage and notes the threads of all calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listed: list[str] = []
        self.threads: set[int] = set()
        self.statuses_read = 0
        for name in ("list", "get", "put"):
            self._wrap(monkeypatch, name)

    @property
    def rounds(self) -> int:
        """How many looks have begun: each lists the change logs first."""
        return self.listed.count("v1/changes")

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        call = getattr(LocalStore, name)

        def counted(store: LocalStore, key: str, *args: object) -> object:
            self.threads.add(threading.get_ident())
            self.statuses_read += name == "get" and key.startswith("v1/status/")
            if name == "list":
                self.listed.append(key)
            return call(store, key, *args)

        monkeypatch.setattr(LocalStore, name, counted)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def test_a_trigger_comes_back_from_airflows_database_as_it_was():
    waiting = trigger(deadline=5.0, token="t", on_kill="cancel", unreachable_timeout_s=7.0)
    path, arguments = waiting.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is RayWorkflowTrigger
    assert RayWorkflowTrigger(**arguments).serialize() == (path, arguments)
    assert "on_kill" in arguments
    assert callable(waiting.on_kill), "Airflow calls it"


@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.FAILED, Status.CANCELED])
async def test_a_trigger_fires_with_the_status_and_what_it_carries(
    store: WorkflowStore, status: Status
):
    write(store, "w", status)
    assert await fired(trigger()) == {
        "reason": "status",
        "workflow_id": "w",
        "status": status.value,
        "error": "",
        "carried": {"takeovers": 1},
    }


async def test_a_trigger_fires_when_nothing_is_stored_any_more(store: WorkflowStore):
    assert (await fired(trigger()))["status"] == "NONE"


async def test_a_trigger_waits_until_the_workflow_ends(store: WorkflowStore, counted: Counted):
    write(store, "w", Status.RUNNING)

    waiting = asyncio.create_task(fired(trigger()))
    await until(lambda: counted.rounds >= 3)
    assert not waiting.done()
    write(store, "w", Status.SUCCESSFUL, number=1)
    assert (await waiting)["status"] == "SUCCESSFUL"


async def test_a_trigger_logs_how_far_its_own_workflow_is(
    store: WorkflowStore, caplog: pytest.LogCaptureFixture
):
    times = TriggerTimes(progress_s=0.0)
    caplog.set_level("INFO")
    write(store, "w", Status.RUNNING, tasks_total=7, tasks_done=3)

    own, foreign = trigger(token="t", times=times), trigger(times=times)
    waiting = [asyncio.create_task(fired(each)) for each in (own, foreign)]
    await until(lambda: "3 of 7" in caplog.text)
    write(store, "w", Status.SUCCESSFUL, number=1)
    assert (await waiting[0] and await waiting[1])["status"] == "SUCCESSFUL"
    assert caplog.text.count("Workflow w: 3 of 7 tasks done") == 1


async def test_a_look_reads_the_progress_of_two_of_all_waiting_workflows(
    store: WorkflowStore, counted: Counted
):
    times = TriggerTimes(progress_s=0.0)
    for number in range(9):
        write(store, f"w{number}", Status.RUNNING)

    waiting = [
        asyncio.create_task(fired(trigger(f"w{number}", token="t", times=times)))
        for number in range(9)
    ]
    await until(lambda: counted.rounds >= 4)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert 0 < counted.statuses_read <= 2 * counted.rounds


async def test_a_workflow_whose_manager_is_gone_fires_as_resumable(store: WorkflowStore):
    write(store, "w", Status.RUNNING)
    store.leases.delete(MANAGER)
    assert (await fired(trigger()))["status"] == "RESUMABLE"


async def test_the_deadline_fires_while_the_workflow_runs(store: WorkflowStore):
    write(store, "w", Status.RUNNING)
    event = await fired(trigger(deadline=time.time()))
    assert (event["reason"], event["status"]) == ("deadline", "RUNNING")


async def test_a_workflow_that_has_ended_counts_more_than_the_deadline(store: WorkflowStore):
    write(store, "w", Status.SUCCESSFUL)
    assert (await fired(trigger(deadline=1.0)))["reason"] == "status"


async def test_the_deadline_fires_also_while_the_storage_hangs(store: WorkflowStore, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(LocalStore, "list", lambda *_: hangs.wait(60))
    try:
        times = TriggerTimes(last_look_s=0.01)
        event = await fired(trigger(deadline=time.time(), times=times))
    finally:
        hangs.set()
    assert event["reason"] == "deadline"


async def test_a_storage_that_fails_for_too_long_fires_with_the_reason(store, monkeypatch):
    def fail(*_: object) -> Iterator[Entry]:
        raise DataLoadError("the bucket is away")

    monkeypatch.setattr(LocalStore, "list", fail)
    event = await fired(trigger(unreachable_timeout_s=0))
    assert (event["reason"], event["error"]) == ("unreachable", "the bucket is away")


async def test_a_storage_that_fails_for_a_moment_is_borne_with(store: WorkflowStore, monkeypatch):
    write(store, "w", Status.SUCCESSFUL)
    look, failures = LocalStore.list, [DataLoadError("away"), DataLoadError("still away")]

    def fail_at_first(*args: object) -> Iterator[Entry]:
        if failures:
            raise failures.pop()
        return look(*args)

    monkeypatch.setattr(LocalStore, "list", fail_at_first)
    assert (await fired(trigger()))["status"] == "SUCCESSFUL"
    assert not failures


async def test_after_a_failure_the_statuses_that_are_known_are_not_read_again(
    store: WorkflowStore, counted: Counted, monkeypatch: pytest.MonkeyPatch
):
    write(store, "w", Status.RUNNING)

    waiting = asyncio.create_task(fired(trigger()))
    await fail_once(counted, monkeypatch)
    rounds = counted.rounds
    await until(lambda: counted.rounds >= rounds + 3)
    write(store, "w", Status.SUCCESSFUL, number=1)
    assert (await waiting)["status"] == "SUCCESSFUL"
    assert counted.listed.count("v1/status/w") == 2, "at first, and when it has changed"


async def test_after_a_failure_another_storage_in_the_connection_is_read_anew(
    store: WorkflowStore, counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(store, "w", Status.RUNNING)
    other = WorkflowStore(open_store(str(tmp_path / "other")))
    write(other, "w", Status.FAILED)

    waiting = asyncio.create_task(fired(trigger()))
    await until(lambda: counted.rounds >= 2)  # the first storage is known by then
    monkeypatch.setenv("AIRFLOW_CONN_WAITED", connection(storage=str(tmp_path / "other")))
    await fail_once(counted, monkeypatch)
    assert (await waiting)["status"] == "FAILED"


async def fail_once(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look fail that comes after others."""
    await until(lambda: counted.rounds >= 2)
    look, failures = LocalStore.list, [DataLoadError("away")]

    def fail(store: LocalStore, folder: str) -> Iterator[Entry]:
        found = look(store, folder)
        if failures:
            raise failures.pop()
        return found

    monkeypatch.setattr(LocalStore, "list", fail)
    await until(lambda: not failures)


async def test_a_connection_that_does_not_exist_fires_with_the_reason():
    event = await fired(trigger(ray_workflow_conn_id="nope", unreachable_timeout_s=0))
    assert event["reason"] == "unreachable"
    assert "nope" in event["error"]


def test_a_thousand_triggers_share_their_rounds_and_never_block_the_loop(
    store: WorkflowStore, counted: Counted, monkeypatch: pytest.MonkeyPatch
):
    """All of the storage is read by one thread that isn't the loop's; the loop goes on meanwhile."""
    names = [f"w{number}" for number in range(1000)]
    write_all(store, names, Status.RUNNING)
    rounds: list[set[poll.Watch]] = []
    run_in_executor = asyncio.BaseEventLoop.run_in_executor

    def noted(
        loop: asyncio.BaseEventLoop, executor: Executor | None, call: Callable, *given: object
    ) -> object:
        if executor is not None:  # a poll's own thread, in which it looks
            (watches,) = given
            rounds.append(set(watches))
        return run_in_executor(loop, executor, call, *given)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", noted)
    counted.threads.clear()
    counted.listed.clear()

    def end_all() -> None:
        write_all(store, names, Status.SUCCESSFUL, number=1)

    turn, answered = 0, Counter()
    wait_for_next = poll.Watch.next

    async def count_next(watch: poll.Watch) -> poll.Standing:
        standing = await wait_for_next(watch)
        answered[turn] += 1
        return standing

    monkeypatch.setattr(poll.Watch, "next", count_next)

    async def wait_for_all() -> tuple[list[dict], set[int]]:
        async def count_turns() -> None:
            nonlocal turn
            while True:
                await asyncio.sleep(0)
                turn += 1

        counting = asyncio.create_task(count_turns())
        all_end = asyncio.gather(*(fired(trigger(name)) for name in names))
        # On a busy machine some begin later.
        await until(lambda: len(rounds) >= 4 and len(rounds[-1]) >= 1000)
        readers = set(counted.threads)
        await asyncio.to_thread(end_all)
        events = await all_end
        counting.cancel()
        return events, readers

    events, readers = asyncio.run(wait_for_all())
    assert {event["status"] for event in events} == {"SUCCESSFUL"}
    listed = Counter(counted.listed)
    assert listed.pop("v1/changes") == len(rounds), "one listing a round, for all of them together"
    assert set(listed) == {f"v1/status/{name}" for name in names}
    assert min(listed.values()) == 2, "one when it is first watched, one when it has changed"
    assert listed.total() < 2010, "and now and then one of the oldest"
    assert len(readers) == 1
    assert threading.get_ident() not in readers, "the loop's thread never reads"
    assert max(answered.values()) <= poll.ANSWERS_A_TURN, "the loop does other things in between"


async def test_rounds_are_as_far_apart_as_the_shortest_interval(store, counted, monkeypatch):
    """The clock is turned: no round begins before its time."""
    write(store, "w", Status.RUNNING)
    slept: list[float] = []
    timeout = asyncio.timeout

    def noted(delay_s: float) -> asyncio.Timeout:
        slept.append(delay_s)
        return timeout(min(delay_s, 0.01))

    monkeypatch.setattr(asyncio, "timeout", noted)

    waiting = [
        asyncio.create_task(fired(trigger(poll_interval_s=interval_s)))
        for interval_s in (900.0, 30.0, 60.0)
    ]
    while len(slept) < 2:
        await asyncio.sleep(0.001)
    for each in waiting:
        each.cancel()
    assert 29 < slept[-1] <= 30


async def test_a_cancelled_trigger_leaves_nothing_running(store: WorkflowStore, counted: Counted):
    write(store, "w", Status.RUNNING)

    waiting = asyncio.create_task(fired(trigger()))
    await until(lambda: counted.rounds >= 2)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await until(lambda: len(asyncio.all_tasks()) == 1)  # else the test's time runs out
    assert dict(poll._POLLS[asyncio.get_running_loop()]) == {}


# ---- the end of a deferred task instance


class TaskInstance:
    dag_id, task_id, run_id, map_index = "d", "t", "r", -1


def kill(waiting: RayWorkflowTrigger, state: str | None, monkeypatch) -> list[StopRequest]:
    """What lies in the storage after a person made the task instance get this state."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", lambda **_: {"r": {"t": state} if state else {}}
    )
    waiting.task_instance = TaskInstance()
    asyncio.run(waiting.on_kill())
    return list(Mailbox(RayWorkflowHook("waited").store.bytes).list_requests())


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed"])
@pytest.mark.parametrize("policy", ["suspend", "cancel"])
def test_a_persons_end_of_a_deferred_task_follows_the_policy(root, monkeypatch, state, policy):
    (request,) = kill(trigger(token="mine", on_kill=policy), state, monkeypatch)
    assert (request.workflow_id, request.token, request.how) == ("w", "mine", policy)


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred"])
def test_a_clear_of_a_deferred_task_never_cancels(root: Path, monkeypatch, state: str | None):
    (request,) = kill(trigger(token="mine", on_kill="cancel"), state, monkeypatch)
    assert request.how == "suspend"


def test_on_kill_leave_writes_nothing(root: Path, monkeypatch):
    assert kill(trigger(token="mine", on_kill="leave"), "failed", monkeypatch) == []


def test_a_trigger_without_a_token_stops_nothing(root: Path, monkeypatch):
    assert kill(trigger(on_kill="suspend"), "failed", monkeypatch) == []


async def test_a_cleanup_alone_stops_nothing(root: Path):
    """A triggerer that is stopped or loses the trigger to another one calls only this."""
    await trigger(token="mine", on_kill="cancel").cleanup()
    assert not (root / "v1" / "requests").exists()


async def test_a_forged_status_fires_nothing_and_hinders_no_other_workflow(
    store: WorkflowStore, monkeypatch: pytest.MonkeyPatch
):
    """The name of a status document is not signed; what is in it is."""
    write(store, "forged", Status.SUCCESSFUL)
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "secret")
    write(store, "true", Status.SUCCESSFUL)

    forged, true = await asyncio.gather(
        fired(trigger("forged", unreachable_timeout_s=0.0)), fired(trigger("true"))
    )
    assert true["status"] == "SUCCESSFUL"
    assert forged["status"] != "SUCCESSFUL"
    assert "not signed" in forged["error"]


async def test_a_damaged_claim_hinders_no_other_workflow_of_the_poll(
    store: WorkflowStore, root: Path
):
    for workflow_id in ("damaged", "true"):
        write(store, workflow_id, Status.SUCCESSFUL)
    (folder := root / "v1/workflows/damaged").mkdir(parents=True)
    (folder / "00000001.epoch").write_text("{")

    damaged, true = await asyncio.gather(
        fired(trigger("damaged", workflow_task_id="t", unreachable_timeout_s=0.0)),
        fired(trigger("true")),
    )
    assert true["status"] == "SUCCESSFUL"
    assert "00000001.epoch" in damaged["error"]
