"""Managers and visitors act, die and stand still at random: whenever all is quiet, all readers agree."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from agreement import Reader, fresh
from faulty import FaultyStore, Killed
from test_submission_reader import GRAPH, INTERVALS, InstantRunner

from airflow_provider_rayworkflow.workflow.exceptions import LeaseLostError, WorkflowError
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseWatch, Process
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = [pytest.mark.timeout(240), pytest.mark.invariant(4)]

IDS = ("a", "b", "c")
ELSEWHERE = replace(Process.current(), machine="another")
OFTEN = replace(INTERVALS, index_s=25.0, left_logs_s=0.01, changes_s=0.0, poll_s=0.05)


class PausingStore(FaultyStore):
    """Stands still at one of its writes, which is made later; and may die before that.

    :ivar pause_at: the number of the write, -1 for never.
    """

    def __init__(self, store: MemoryStore, *, at: int = -1, how: str = "after") -> None:
        super().__init__(store, at=at, how=how)
        self.pause_at = -1
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    @property
    def is_paused(self) -> bool:
        return not self._may_go_on.is_set()

    def pause(self) -> None:
        self.pause_at = self.writes

    def go_on(self) -> None:
        self.pause_at = -1
        self._may_go_on.set()

    def stop(self) -> None:
        """Let it die, with the write at which it stands still."""
        if self.is_paused and not self.died.done():
            self.died.set_result(None)
        self.go_on()
        self.die()

    def _check_alive(self) -> None:
        assert self._may_go_on.wait(60)
        super()._check_alive()

    def _write(self, key: str, write: Callable[[], object], data: Data) -> object:
        def write_late() -> object:
            if self.writes - 1 == self.pause_at:
                self._may_go_on.clear()
                assert self._may_go_on.wait(60)
                super(PausingStore, self)._check_alive()
            return write()

        return super()._write(key, write_late, data)


class World:
    """A storage, those who act on it, and a reader.

    :ivar now: seconds that never jump, for all of them.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.bytes = MemoryStore()
        self.reader = Reader(self.bytes, watched=(*IDS, "forked"))
        self.managers: list[tuple[Manager, PausingStore]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.deleted: set[str] = set()
        self.said: list[str] = []

    @property
    def wall(self) -> float:
        """Seconds since the epoch. They pass faster: managers make hundreds of versions of the index in one."""
        return 1e9 + 100 * self.now

    def open(self, store: PausingStore) -> WorkflowStore:
        return fresh(store, LeaseWatch(lambda: self.now))

    def living(self) -> list[tuple[Manager, PausingStore]]:
        return [
            (manager, store)
            for manager, store in self.managers
            if not store.died.done() and not store.is_paused and not manager.tenure.is_over
        ]

    # ---- what happens

    async def do(self, call: Callable[[], Awaitable[object]]) -> None:
        async def act() -> None:
            with contextlib.suppress(WorkflowError, LeaseLostError, Killed):
                await call()

        task = asyncio.ensure_future(act())
        self.tasks.add(task)
        await asyncio.wait([task], timeout=0.3)
        await self.settle()

    async def settle(self) -> None:
        """Wait until no writes come any more."""
        quiet, before = 0, -1
        while quiet < 3:
            await asyncio.sleep(0.01)
            writes = sum(store.writes for _, store in self.managers)
            quiet = quiet + 1 if writes == before else 0
            before = writes

    async def add_manager(self) -> None:
        store = PausingStore(self.bytes)
        number = len(self.managers)
        manager = Manager(
            store=self.open(store),
            runner=InstantRunner(is_endless=self.random.random() < 0.4),
            manager_id=f"m{number}",
            actor_id=f"actor{number}",
            limits=Limits(max_running=self.random.choice([1, 3])),
            process=ELSEWHERE,
            intervals=OFTEN,
            clock=lambda: self.wall,
            elapsed=lambda: self.now,
        )
        self.managers.append((manager, store))
        await self.do(manager.start)

    async def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 4.0
            self.reader.now = self.now
            await self.do(self.renew_all)
            await asyncio.to_thread(self.reader.look)

    async def renew_all(self) -> None:
        renewals = [asyncio.to_thread(manager.renew_lease) for manager, _ in self.living()]
        await asyncio.gather(*renewals, return_exceptions=True)

    async def step(self) -> None:
        chosen, workflow_id = self.random.random(), self.random.choice(IDS)
        living = self.living()
        if not living or chosen < 0.08:
            self.said.append("a manager comes")
            await self.add_manager()
            return
        manager, store = self.random.choice(living)
        if chosen < 0.4:
            on_existing = self.random.choice(["resume", "restart"])
            self.said.append(f"{manager.manager_id} starts {workflow_id}: {on_existing}")
            options = StartOptions(on_existing=on_existing)  # type: ignore[arg-type]
            submit = manager.submit
            await self.do(lambda: submit(workflow_id, GRAPH, user_metadata={}, options=options))
        elif chosen < 0.5:
            self.said.append(f"{manager.manager_id} cancels {workflow_id}")
            await self.do(lambda: manager.cancel(workflow_id))
        elif chosen < 0.55:
            self.said.append(f"{manager.manager_id} deletes {workflow_id}")
            self.deleted.add(workflow_id)
            await self.do(lambda: manager.inactive.delete(workflow_id))
        elif chosen < 0.65:
            self.said.append(f"{manager.manager_id} dies")
            store.stop()
        elif chosen < 0.75:
            self.said.append(f"{manager.manager_id} stands still at its next write")
            store.pause()
        elif chosen < 0.8:
            for paused in [one for _, one in self.managers if one.is_paused][:1]:
                self.said.append("one goes on")
                paused.go_on()
                await self.settle()
        elif chosen < 0.85:
            self.said.append("the index is lost")
            self.bytes.delete_folder("v1/index")
        else:
            await self.visit(workflow_id)

    async def visit(self, workflow_id: str) -> None:
        acts: list[Callable[[WorkflowStore], object]] = [
            lambda store: lifecycle.cancel(store, workflow_id, now=self.wall),
            lambda store: _delete(store, workflow_id, self.wall),
            lambda store: prune(
                store, older_than_s=0.0, now=self.wall + 1.0, statuses=["CANCELED"]
            ),
            lambda store: fork(store, workflow_id, "forked", from_task="", now=self.wall),
        ]
        number = self.random.randrange(4)
        at, how = self.random.choice([-1, *range(12)]), self.random.choice(["before", "after"])
        self.said.append(f"visitor {number} for {workflow_id}, killed {how} {at}")
        self.deleted.update(IDS if number == 2 else [workflow_id])
        store = self.open(PausingStore(self.bytes, at=at, how=how))
        await self.do(lambda: asyncio.to_thread(acts[number], store))

    async def check(self) -> None:
        self.said.append("check")
        await self.pass_time(24.0)
        await self.settle()
        came_again = {*self.deleted, "forked"}
        await asyncio.to_thread(lambda: self.reader.check(came_again=came_again))

    async def end(self) -> None:
        """All go on, and are gone; what they have left is taken over."""
        self.said.append("the end")
        for _, store in self.managers:
            store.go_on()
        await self.settle()
        await self.check()
        for manager, store in self.managers:
            if not store.died.done() and not manager.tenure.is_over:
                await self.do(manager.close)
            store.stop()
        await self.check()
        left = LeftLogs(self.open(PausingStore(self.bytes)), elapsed=lambda: self.now)
        for number in range(5):
            left.take_over(self.wall)
            if number == 1 and WorkflowStore(self.bytes).index.load() is None:
                rebuild(WorkflowStore(self.bytes), now=self.wall)
            self.now += 1000.0
            self.reader.now = self.now
            await asyncio.to_thread(self.reader.look)
        await self.check()
        assert list(WorkflowStore(self.bytes).changes.writers()) == []


def _delete(store: WorkflowStore, workflow_id: str, now: float) -> None:
    found = StatusReader(store).read(workflow_id)
    if found is not None:
        lifecycle.delete(store, found, manager_id="visitor-x", now=now)


async def live(seed: int) -> None:
    world = World(seed)
    try:
        for number in range(10):
            await world.step()
            if number % 4 == 3:
                await world.check()
        await world.end()
    except AssertionError as exc:
        exc.add_note("\n".join([f"seed {seed}", *world.said]))
        raise
    finally:
        for _, store in world.managers:
            store.stop()


async def live_all(seeds: Iterable[int]) -> None:
    """Each waits most of the time."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)
    loop.set_default_executor(ThreadPoolExecutor(200))  # many of them stand still
    await asyncio.gather(*map(live, seeds))


@pytest.mark.parametrize("first", [0, 10, 20])
def test_readers_agree_whenever_all_is_quiet(first: int) -> None:
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        try:
            loop.run_until_complete(live_all(range(first, first + 10)))
        finally:
            for _ in range(50):
                if not (left := asyncio.all_tasks(loop)):
                    break
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(left, timeout=0.1))
