"""One owner with all clocks: several managers on one storage, with clocks as arguments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hand_runner import HandRunner
from noting_store import NotingStore
from sample_records import claim_epoch
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import (
    LeaseLostError,
    OwnershipLostError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.ownership import Ownership
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.leases import (
    LEASE_TTL_S,
    LeaseWatch,
    Process,
    Tenure,
)
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = [pytest.mark.invariant(3), pytest.mark.timeout(60)]

NOW = 1_700_000_000.0
GRAPH = Graph(
    tasks=[
        Task(name="a", function=0, arguments=0),
        Task(name="b", function=0, arguments=0, upstream=(0,)),
    ],
    blobs=[b""],
).to_bytes()


@dataclass
class Host:
    """A machine: its process, its wall clock, and the clock that a sleep or a pause stops."""

    name: str
    skew_s: float = 0.0
    elapsed_s: float = 0.0

    def clock(self) -> float:
        return NOW + self.elapsed_s + self.skew_s


@dataclass
class Fleet:
    """Managers on one storage, each on a host of its own."""

    store: MemoryStore = field(default_factory=MemoryStore)
    started: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, Host] = field(default_factory=dict)
    runners: dict[str, HandRunner] = field(default_factory=dict)

    async def manager(
        self, name: str, *, skew_s: float = 0.0, is_here: bool = False, recovers: str = ""
    ) -> Manager:
        host = self.hosts[name] = Host(name, skew_s)
        runner = self.runners[name] = HandRunner(self.started)
        store = WorkflowStore(self.store)
        store.leases.watch = LeaseWatch(lambda: host.elapsed_s)
        elsewhere = Process(host=name, machine=f"{name}/1/1", pid=1, started="1")
        manager = Manager(
            store=store,
            runner=runner,
            manager_id=name,
            actor_id=f"actor of {name}",
            limits=Limits(),
            clock=host.clock,
            elapsed=lambda: host.elapsed_s,
            process=Process.current() if is_here else elsewhere,
            intervals=Intervals(watch_s=0.001),
        )
        await manager.start()
        return manager

    def pass_time(self, seconds: float, *names: str) -> None:
        for name in names or self.hosts:
            self.hosts[name].elapsed_s += seconds

    async def live(self, seconds: float, *managers: Manager) -> None:
        """Let time pass for managers that go on and renew their leases."""
        while seconds > 0:
            for manager in managers:
                self.hosts[manager.manager_id].elapsed_s += min(seconds, 5)
                await asyncio.to_thread(manager.renew_lease)
            seconds -= 5
            await turns()

    async def finish(self, name: str) -> None:
        for task_id in ("a", "b"):
            await self.runners[name].end(task_id)

    def epochs(self) -> list[int]:
        files = WorkflowStore(self.store).list_files("w")
        return [file.epoch for file in files if file.kind == "epoch"]

    def written_by(self, epoch: int, kind: str) -> list[str]:
        files = WorkflowStore(self.store).list_files("w")
        return [file.key for file in files if file.kind == kind and file.epoch == epoch]

    def status(self) -> WorkflowStatus:
        record = WorkflowStore(self.store).read_status("w")
        assert record is not None
        return record.status


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


async def turns(number: int = 50) -> None:
    """Let everything go on for a while that can."""
    for _ in range(number):
        await asyncio.sleep(0.001)


async def submit(manager: Manager) -> None:
    await manager.submit("w", GRAPH, user_metadata={})


# ---- nothing is taken over by a clock


@pytest.mark.parametrize("skew_s", [-3600, -400, -20, 20, 400, 3600])
@pytest.mark.parametrize("is_here", [True, False], ids=["same host", "another host"])
async def test_a_clock_step_of_the_reader_makes_no_second_owner(
    fleet: Fleet, skew_s: float, is_here: bool
):
    first = await fleet.manager("first", is_here=is_here)
    await submit(first)
    second = await fleet.manager("second", skew_s=skew_s, is_here=is_here)
    resuming = asyncio.ensure_future(second.resume("w"))
    await fleet.live(60, first, second)
    await resuming
    await fleet.finish("first")
    assert (await second.queries.wait_output("w")).status is WorkflowStatus.SUCCESSFUL
    assert fleet.epochs() == [1]
    assert fleet.started == {"a": 1, "b": 1}


@pytest.mark.parametrize("step_s", [-3600, -20, 20, 3600])
async def test_a_clock_step_of_the_owner_makes_no_second_owner(fleet: Fleet, step_s: float):
    first = await fleet.manager("first")
    await submit(first)
    second = await fleet.manager("second")
    fleet.hosts["first"].skew_s = step_s
    await asyncio.to_thread(first.renew_lease)
    resuming = asyncio.ensure_future(second.resume("w"))
    await fleet.live(60, first, second)
    await resuming
    assert fleet.epochs() == [1]
    await fleet.finish("first")
    assert (await first.queries.wait_output("w")).status is WorkflowStatus.SUCCESSFUL


@pytest.mark.parametrize("skew_s", [-3600, 0, 3600])
async def test_a_manager_that_died_elsewhere_is_replaced_after_one_lease_time(
    fleet: Fleet, skew_s: float
):
    await submit(await fleet.manager("first"))
    second = await fleet.manager("second", skew_s=skew_s)
    watching = asyncio.ensure_future(second.queries.wait_output("w", take_over=True))
    await turns()
    await fleet.live(LEASE_TTL_S - 0.5, second)
    assert fleet.epochs() == [1]
    await fleet.live(1, second)
    await fleet.finish("second")
    assert (await watching).status is WorkflowStatus.SUCCESSFUL
    assert fleet.epochs() == [1, 2]


async def test_an_operation_of_one_look_shows_what_it_sees_and_takes_nothing_over(fleet: Fleet):
    await submit(await fleet.manager("first"))
    visitor = WorkflowStore(fleet.store)
    for now in (NOW, NOW + 400, NOW - 400):
        found = StatusReader(visitor, lambda now=now: now).read("w")
        assert found is not None
        assert found.status == ("RUNNING" if now == NOW else "RESUMABLE")
        assert found.owner_may_live is (now != NOW)
        with pytest.raises(WorkflowStillActiveError, match="still"):
            lifecycle.delete(visitor, found, manager_id="visitor-1", now=now)
    assert fleet.epochs() == [1]


# ---- an owner that was stopped notices before it commits anything


async def taken_over(fleet: Fleet) -> tuple[Manager, Manager]:
    """The first manager runs ``a``; then it is stopped, and the second one takes over."""
    first, second = await fleet.manager("first"), await fleet.manager("second")
    await submit(first)
    await until(lambda: "a" in fleet.runners["first"].errands)
    resuming = asyncio.ensure_future(second.queries.wait_output("w", take_over=True))
    await turns()
    await fleet.live(LEASE_TTL_S + 1, second)
    await until(lambda: "a" in fleet.runners["second"].errands)
    resuming.cancel()
    return first, second


@pytest.mark.parametrize(
    "has_noticed_time", [True, False], ids=["stopped", "paused with its clocks"]
)
async def test_an_owner_that_was_stopped_commits_nothing_when_it_goes_on(
    fleet: Fleet, has_noticed_time: bool
):
    first, _ = await taken_over(fleet)
    caller = asyncio.ensure_future(first.queries.wait_output("w"))
    await turns(5)
    if has_noticed_time:
        fleet.pass_time(LEASE_TTL_S + 1, "first")
    await fleet.runners["first"].end("a")
    await until(lambda: "w" not in first._known.live)
    assert fleet.written_by(1, "journal") == []
    assert fleet.started == {"a": 2}
    await fleet.finish("second")
    assert (await caller).status is WorkflowStatus.SUCCESSFUL  # by what the second one wrote
    record = WorkflowStore(fleet.store).read_status("w")
    assert (record.epoch, record.manager_id) == (2, "second")
    assert fleet.started == {"a": 2, "b": 1}


async def test_a_lease_that_ran_out_is_not_revived_by_a_late_renewal(fleet: Fleet):
    first, _ = await taken_over(fleet)
    fleet.pass_time(LEASE_TTL_S + 1, "first")
    before = fleet.store.get(keys.lease_key("first"))
    with pytest.raises(LeaseLostError):
        await asyncio.to_thread(first.renew_lease)
    assert fleet.store.get(keys.lease_key("first")) == before
    await until(lambda: not first._known.live)
    assert fleet.runners["first"].errands == {}
    with pytest.raises(OwnershipLostError, match="could not be renewed"):
        await first.submit("other", GRAPH, user_metadata={})
    assert WorkflowStore(fleet.store).list_files("other") == []


async def test_a_renewal_notices_a_later_claim_though_nothing_is_written(fleet: Fleet):
    first, _ = await taken_over(fleet)
    await asyncio.to_thread(first.renew_lease)
    await until(lambda: not first._known.live)
    assert fleet.runners["first"].errands == {}


class Slow(MemoryStore):
    """A write of certain objects takes so long that the writer's lease runs out.

    :ivar happens: what happens after such a write, before its writer hears of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.word = ""
        self.happens: Callable[[], None] = lambda: None

    def put(self, key: str, data: Data) -> None:
        super().put(key, data)
        if self.word and self.word in key:
            self.word = ""
            self.happens()


@pytest.mark.parametrize("word", [".journal", "-SUCCESSFUL-"])
async def test_an_owner_that_is_stopped_in_the_middle_of_a_write_reports_no_status(
    fleet: Fleet, word: str
):
    fleet.store = store = Slow()
    first = await fleet.manager("first")
    await submit(first)
    caller = asyncio.ensure_future(first.queries.wait_output("w"))
    live = first._known.live["w"]
    store.word, store.happens = word, lambda: fleet.pass_time(LEASE_TTL_S)
    ending = asyncio.ensure_future(fleet.finish("first"))
    with pytest.raises(OwnershipLostError, match="could not be renewed"):
        await live.ended
    ending.cancel()
    caller.cancel()
    assert fleet.started == ({"a": 1} if word == ".journal" else {"a": 1, "b": 1})


# ---- three managers


async def test_of_two_that_take_over_from_a_third_one_runs_it(fleet: Fleet):
    first = await fleet.manager("first")
    others = [await fleet.manager(name, skew_s=3600) for name in ("second", "third")]
    await submit(first)
    await until(lambda: "a" in fleet.runners["first"].errands)
    waiting = [
        asyncio.ensure_future(one.queries.wait_output("w", take_over=True)) for one in others
    ]
    await turns()
    await fleet.live(LEASE_TTL_S + 1, *others)
    await until(lambda: fleet.started["a"] == 2)
    # The first one was paused with its machine: its own clock has not counted that.
    await fleet.live(40, first, *others)
    [owner] = [name for name in ("second", "third") if fleet.runners[name].errands]
    assert fleet.runners["first"].errands == {}
    await fleet.finish(owner)
    outputs = await asyncio.gather(*waiting)
    assert [output.status for output in outputs] == ["SUCCESSFUL"] * 2
    assert fleet.epochs() == [1, 2]
    assert fleet.started == {"a": 2, "b": 1}


async def test_a_claim_without_a_status_is_waited_for_as_long_as_its_owner_may_live(fleet: Fleet):
    """The first one is stopped, the second claims and is stopped before its status, the third waits."""

    first, second = await fleet.manager("first"), await fleet.manager("second")
    await submit(first)
    store = WorkflowStore(fleet.store)
    continued = store.read_claim("w", 1)
    assert claim_epoch(store, after=1, manager_id="second", now=NOW, continues=continued)
    third = await fleet.manager("third", skew_s=400)
    resuming = asyncio.ensure_future(third.resume("w"))
    await turns()
    await fleet.live(30, second, third)  # the first one is silent for longer than its lease
    assert fleet.epochs() == [1, 2]
    assert not resuming.done()
    await fleet.live(LEASE_TTL_S + 1, third)
    await resuming
    await fleet.finish("third")
    assert (await third.queries.wait_output("w")).status is WorkflowStatus.SUCCESSFUL
    await fleet.runners["first"].end("a")
    await until(lambda: "w" not in first._known.live)
    assert fleet.epochs() == [1, 2, 3]
    assert fleet.written_by(1, "journal") == []
    assert fleet.status() is WorkflowStatus.SUCCESSFUL


# ---- what it costs


class Far(NotingStore):
    """Each look is a request."""

    reads_at_once = 16


def owned(store: MemoryStore, clock: Callable[[], float]) -> Ownership:
    tenure = Tenure(LEASE_TTL_S, clock)
    claim = next_claim("w", after=0, manager_id="m", now=NOW, user_metadata={}, has_graph=False)
    ownership = Ownership(WorkflowStore(store), claim, tenure, look_interval_s=1.0)
    put = ownership.claim_put(None)
    store.put_if_absent(put.key, put.data)
    ownership.is_held = True
    return ownership


def test_one_look_at_a_remote_storage_is_good_for_a_while():
    store, now = Far(), 100.0
    ownership = owned(store, lambda: now)
    for _ in range(50):
        ownership.check()
    assert store.count("get") == 0  # the claim itself was a look
    now += 1.0
    for _ in range(50):
        ownership.check()
    assert store.count("get") == 2


@pytest.mark.parametrize("store", [MemoryStore(), Far()], ids=["near", "far"])
def test_a_claim_of_the_same_epoch_by_another_manager_is_not_ones_own(store: MemoryStore):
    """The workflow was deleted, and run again under its id."""
    now = 100.0
    ownership = owned(store, lambda: now)
    store.delete_folder("v1/workflows/w")
    claim_epoch(WorkflowStore(store), manager_id="other", now=NOW)
    now += 1.0
    with pytest.raises(OwnershipLostError, match="replaced while it ran") as caught:
        ownership.check()
    assert caught.value.is_deleted
