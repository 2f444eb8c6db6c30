"""What a manager writes for several workflows at the same time goes together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RetryingStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put


class Gated(MemoryStore):
    """Keeps what is written until it may go on.

    :ivar groups: the keys of each group.
    :ivar deletions: the keys of each call.
    """

    def __init__(self, *, together: int = 64) -> None:
        super().__init__()
        self.together = together
        self.groups: list[list[str]] = []
        self.deletions: list[list[str]] = []
        self.go_on = threading.Event()

    def put_all(self, puts: Sequence[Put]) -> None:
        self.groups.append([put.key for put in puts])
        assert self.go_on.wait(10)
        super().put_all(puts)

    def put(self, key: str, data: Any) -> None:
        if key == "bad":
            raise DataSaveError("bad")
        super().put(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        self.deletions.append(list(keys))
        if "bad" in self.deletions[-1]:
            raise DataSaveError("bad")


class Busy(MemoryStore):
    """Together with others or not, one object can't be written yet."""

    together = 64

    def __init__(self) -> None:
        super().__init__()
        self.is_busy = True

    def put(self, key: str, data: Any) -> None:
        if key == "busy" and self.is_busy:
            raise DataSaveError("busy", is_transient=True)
        super().put(key, data)


def put(writes: Writes, key: str, **options: Any) -> asyncio.Future[bool]:
    return writes.put(lambda: Put(key, b"x"), **options)


async def until_groups(store: Gated, count: int) -> None:
    await until(lambda: len(store.groups) >= count)


async def test_writes_that_come_while_a_group_is_under_way_go_together():
    with ThreadPoolExecutor() as threads:
        store = Gated(together=3)
        writes = Writes(store, threads)
        written = [put(writes, key) for key in "ab"]
        await until_groups(store, 1)
        written += [put(writes, key) for key in "cdef"]
        assert await put(writes, "large", alone=True)  # waits for no other
        assert store.groups == [["a", "b"]]
        store.go_on.set()
        assert await asyncio.gather(*written) == [True] * 6
        assert store.groups == [["a", "b"], ["c", "d", "e"], ["f"]]


async def test_each_write_goes_by_itself_where_groups_gain_nothing():
    with ThreadPoolExecutor() as threads:
        store = Gated(together=1)
        writes = Writes(store, threads)
        written = [put(writes, key) for key in "abc"]
        assert await asyncio.gather(*written) == [True] * 3
        assert store.groups == []


async def test_each_write_of_a_group_fails_by_itself():
    def no_put() -> Put:
        raise ValueError("can't be put into words")

    with ThreadPoolExecutor() as threads:
        store = Gated()
        store.go_on.set()
        store.put_if_absent("there", b"before")
        writes = Writes(store, threads)
        results = await asyncio.gather(
            put(writes, "good"),
            put(writes, "bad"),
            writes.put(no_put),
            writes.put(lambda: Put("there", b"x", must_be_new=True)),
            put(writes, "also good"),
            return_exceptions=True,
        )
        assert results[0] is results[4] is True
        assert [type(results[1]), type(results[2])] == [DataSaveError, ValueError]
        assert results[3] is False
        assert store.get("there") == b"before"


async def test_a_write_that_may_work_a_moment_later_is_tried_again_and_holds_up_no_other():
    with ThreadPoolExecutor() as threads:
        waited = threading.Event()
        store = Busy()
        writes = Writes(RetryingStore(store, sleep=lambda _: waited.wait(10)), threads)
        busy = put(writes, "busy")
        assert await asyncio.gather(put(writes, "a"), put(writes, "b")) == [True, True]
        assert await put(writes, "c")
        assert not busy.done()
        store.is_busy = False
        waited.set()
        assert await busy
        assert store.get("busy") == b"x"


async def test_a_store_that_breaks_is_an_error_for_all_of_the_group():
    class Broken(MemoryStore):
        together = 64

        def put_all(self, puts: Sequence[Put]) -> None:
            raise MemoryError

    with ThreadPoolExecutor() as threads:
        writes = Writes(Broken(), threads)
        written = [put(writes, key) for key in "ab"]
        results = await asyncio.gather(*written, return_exceptions=True)
        assert [type(result) for result in results] == [MemoryError, MemoryError]


async def test_deletions_go_together_and_one_that_fails_only_leaves_something(
    caplog: pytest.LogCaptureFixture,
):
    with ThreadPoolExecutor() as threads:
        store = Gated()
        writes = Writes(store, threads)
        await asyncio.gather(*(writes.delete(key) for key in ("a", "bad", "c")))
        assert store.deletions == [["a", "bad", "c"]]
    assert "can't be deleted: bad" in caplog.text
