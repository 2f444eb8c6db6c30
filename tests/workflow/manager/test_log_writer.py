"""The manager writes logs in pieces, in the background: bounded, each line once, and at no cost to the run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, OwnershipLostError
from airflow_provider_rayworkflow.workflow.manager.log_writer import (
    MAX_LOG_BYTES,
    MAX_LOG_VARIABLE,
    LogWriter,
    RunLog,
    max_log_bytes,
)
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals, Registry
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine, TaskLines
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.log_pieces import BEGINNING

W = "w"


class Store(MemoryStore):
    """Counts the requests, and fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.failures = 0

    def put(self, key: str, data: Any) -> None:
        self.requests.append(f"put {key}")
        if self.failures:
            self.failures -= 1
            raise DataSaveError("The disk is full.")
        super().put(key, data)

    def list(self, folder: str) -> Any:
        self.requests.append(f"list {folder}")
        return super().list(folder)

    def delete(self, keys: Any) -> None:
        keys = list(keys)
        self.requests.append(f"delete {len(keys)}")
        super().delete(keys)


class Guard:
    is_lost = False

    def check(self) -> None:
        if self.is_lost:
            raise OwnershipLostError(W, 1)

    def confirm(self) -> None:
        pass


class Logs:
    def __init__(self, store: Store, intervals: Intervals, **limits: int) -> None:
        self.store = store
        self.known = Registry(
            WorkflowStore(store),
            manager_id="m",
            clock=lambda: 7.0,
            tenure=Tenure(15, lambda: 0.0),
            intervals=intervals,
        )
        self.writer = LogWriter(self.known, **limits)

    def run(self, epoch: int = 1, guard: Guard | None = None) -> RunLog:
        claim = Claim(
            workflow_id=W,
            epoch=epoch,
            base_epoch=1,
            graph_epoch=1,
            manager_id="m",
            claimed_at=0.0,
            user_metadata={},
            on_change="reuse",
            restarts={},
        )
        return self.writer.of_run(claim, guard or Guard())

    @property
    def texts(self) -> list[str]:
        found: list[str] = []
        cursor, is_all = BEGINNING, False
        while not is_all:
            read = self.known.store.logs.read(W, cursor)
            cursor, is_all = read.cursor, read.is_all
            found += [line.text for line in read.lines]
        return found


@asynccontextmanager
async def logs(
    *,
    log_s: float = 0.01,
    store: Store | None = None,
    close_s: float = 10.0,
    **limits: int,
) -> AsyncIterator[Logs]:
    yield Logs(store or Store(), Intervals(log_s=log_s, log_close_s=close_s), **limits)


def lines(*texts: object, sender: str = "", first: int = 0) -> TaskLines:
    made = [LogLine(1.0, "INFO", "a", 1, str(text)) for text in texts]
    return TaskLines(workflow_id=W, epoch=1, lines=made, sender=sender, first=first)


async def test_a_silent_run_costs_no_request():
    async with logs() as given:
        run = given.run(epoch=5)
        await run.close()
        assert given.store.requests == []


async def test_what_comes_within_the_interval_is_one_piece_which_nothing_waits_for():
    async with logs(log_s=0.2) as given:
        run = given.run()
        run.take(lines(1, 2))
        run.take(lines(3))
        assert given.store.requests == []
        await until(lambda: given.texts == ["1", "2", "3"])
        assert [r for r in given.store.requests if r.startswith("put")] == [
            "put v1/logs/w/00000001-00000001.jsonl"
        ]
        run.take(lines(4))
        await run.close()
        assert given.texts == ["1", "2", "3", "4"]


async def test_the_end_writes_at_once_and_drops_what_comes_later():
    async with logs(log_s=1000) as given:
        run = given.run()
        run.take(lines(1))
        await run.close()
        assert given.texts == ["1"]
        run.take(lines(2))
        run.remark("WARNING", "a", 1, "late")
        await run.close()
        assert given.texts == ["1"]
        assert given.writer.waiting_bytes == 0


async def test_lines_that_are_sent_again_count_once():
    async with logs() as given:
        run = given.run()
        run.take(lines(0, 1, sender="s"))
        run.take(lines(0, 1, 2, sender="s"))
        run.take(lines(3, 4, sender="s", first=3))
        run.take(lines(0, 1, sender="s"))  # it was on its way for long
        run.take(lines(0, sender="t"))
        await run.close()
        assert given.texts == ["0", "1", "2", "3", "4", "0"]


async def test_remarks_come_along_and_only_warnings_come_alone():
    async with logs(log_s=0.01) as given:
        run = given.run()
        run.remark("INFO", "a", 1, "stopped")
        run.remark("ERROR", "a", 1, "failed")
        await run.close()
        assert given.store.requests == []
        run = given.run()
        run.remark("INFO", "a", 1, "stopped")
        run.remark("WARNING", "a", 1, "tried again")
        await run.close()
        assert given.texts == ["stopped", "tried again"]


async def test_a_log_that_is_full_ends_with_a_note():
    async with logs(max_bytes=2000) as given:
        run = given.run()
        for number in range(100):
            run.take(lines(f"{number:0100d}"))
        await until(lambda: len(given.texts) > 0)
        run.take(lines("more"))
        await run.close()
        *texts, note = given.texts
        assert texts == [f"{number:0100d}" for number in range(len(texts))]
        assert 5 < len(texts) < 20
        assert "has reached 2,000 bytes" in note
        assert given.writer.waiting_bytes == 0


async def test_a_later_run_has_half_of_the_room():
    async with logs(max_bytes=4000) as given:
        for epoch in (1, 2, 3):
            run = given.run(epoch)
            for number in range(100):
                run.take(lines(f"{epoch} {number:0100d}"))
            await run.close()
        found = given.known.store.logs.read(W).lines
        assert [line.text[0] for line in found if line.text[0] == "3"]
        assert any("deleted" in line.text for line in found)
        assert sum(file.size for file in given.known.store.logs.files(W)) < 8000
        assert (
            sum(r.startswith("list") for r in given.store.requests) == 4
        )  # two of them by this test


async def test_nothing_is_kept_where_the_limit_is_none():
    async with logs(max_bytes=0) as given:
        run = given.run()
        run.take(lines(1))
        await run.close()
        assert given.store.requests == []


async def test_memory_is_bounded_over_all_workflows_and_a_note_says_what_is_left_out():
    async with logs(memory_bytes=5000, log_s=1000) as given:
        run, other = given.run(1), given.run(2)
        other.take(lines(*[f"{number:0100d}" for number in range(100)]))
        run.take(lines(*[f"{number:0100d}" for number in range(20)]))
        assert given.writer.waiting_bytes <= 5000
        await other.close()
        await run.close()
        assert given.writer.waiting_bytes == 0
        notes = [text for text in given.texts if "lines are left out here" in text]
        assert [note[:9] for note in notes] == ["[20 lines", notes[1][:9]]


async def test_what_is_left_out_during_the_last_write_has_its_note():
    class SlowStore(Store):
        may_go_on = threading.Event()

        def put(self, key: str, data: Any) -> None:
            super().put(key, data)
            assert self.may_go_on.wait(20)

    store = SlowStore()
    async with logs(store=store, memory_bytes=1000) as given:
        run = given.run()
        run.take(lines("x" * 800))
        await until(lambda: bool(store.requests))
        run.take(lines("y" * 800))
        store.may_go_on.set()
        await run.close()
        assert given.texts[0] == "x" * 800
        assert [text[:29] for text in given.texts[1:]] == ["[1 lines are left out here: t"]


async def test_what_a_storage_does_not_take_counts_as_memory():
    store = Store()
    store.failures = 10**9
    async with logs(store=store, memory_bytes=5000) as given:
        run = given.run()
        run.take(lines(*[f"{number:0100d}" for number in range(20)]))
        await until(lambda: bool(store.requests))
        run.take(lines(*[f"{number:0100d}" for number in range(100)]))
        assert given.writer.waiting_bytes <= 5000
        store.failures = 0
        await run.close()
        assert len([text for text in given.texts if "left out" not in text]) == 26


async def test_a_write_that_fails_is_tried_again_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
):
    store = Store()
    store.failures = 3
    async with logs(store=store) as given:
        run = given.run()
        run.take(lines(1))
        await until(lambda: store.failures < 2)
        run.take(lines(2))
        await until(lambda: given.texts == ["1", "2"])
        await run.close()
        assert given.texts == ["1", "2"]
    assert sum("can't be written now" in text for text in caplog.messages) == 1


async def test_a_write_that_fails_while_the_run_ends_is_tried_once_more():
    store = Store()
    has_begun, may_fail = threading.Event(), threading.Event()

    def fail_once(key: str, data: Any) -> None:
        store.put = lambda key, data: MemoryStore.put(store, key, data)  # type: ignore[method-assign]
        has_begun.set()
        may_fail.wait(20)
        raise DataSaveError("The disk is full.")

    store.put = fail_once  # type: ignore[method-assign]
    async with logs(store=store) as given:
        run = given.run()
        run.take(lines(1))
        await until(has_begun.is_set)
        asyncio.get_running_loop().call_soon(may_fail.set)  # once the end waits for it
        await run.close()
        assert given.texts == ["1"]


async def test_a_storage_that_hangs_does_not_hold_the_end_of_the_run():
    store = Store()
    is_down = [True]

    def put(key: str, data: Any) -> None:
        import time

        while is_down[0]:
            time.sleep(0.01)
        MemoryStore.put(store, key, data)

    store.put = put  # type: ignore[method-assign]
    async with logs(store=store, close_s=0.05) as given:
        run = given.run()
        run.take(lines(1))
        async with asyncio.timeout(5):
            await run.close()
        assert given.writer.waiting_bytes == 0
        is_down[0] = False
        await until(lambda: given.texts == ["1"])


async def test_nothing_is_written_for_a_workflow_that_is_anothers():
    async with logs() as given:
        guard = Guard()
        run = given.run(guard=guard)
        guard.is_lost = True
        run.take(lines(1))
        await asyncio.sleep(0.1)
        run.take(lines(2))
        await run.close()
        assert given.store.requests == []
        assert given.writer.waiting_bytes == 0


async def test_a_hundred_thousand_lines_are_written_in_few_pieces_and_order():
    async with logs(max_bytes=64 * 1024 * 1024, close_s=100) as given:
        run = given.run()
        for start in range(0, 100_000, 1000):
            run.take(lines(*range(start, start + 1000)))
            await asyncio.sleep(0)
        await run.close()
        assert len([r for r in given.store.requests if r.startswith("put")]) < 30
        assert given.texts == [str(number) for number in range(100_000)]


def test_the_environment_says_how_much_is_kept():
    assert max_log_bytes({}) == MAX_LOG_BYTES
    assert max_log_bytes({MAX_LOG_VARIABLE: "0"}) == 0
    with pytest.raises(ValueError, match=MAX_LOG_VARIABLE):
        max_log_bytes({MAX_LOG_VARIABLE: "16M"})
