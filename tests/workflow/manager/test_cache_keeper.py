"""A manager keeps the cache within its size, by itself."""

from __future__ import annotations

import effects
import pytest
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.manager.cache_keeper import (
    MAX_CACHE_BYTES,
    max_cache_bytes,
)
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CACHE


@workflow.task(cache=workflow.Cache())
def large(letter: str) -> bytes:
    effects.note(letter)
    return letter.encode() * 50_000


def managing(store: MemoryStore, max_bytes: int) -> InProcessManager:
    return InProcessManager(
        store, make_manager=lambda **given: Manager(**given, max_cache_bytes=max_bytes)
    )


def size_of(store: MemoryStore) -> int:
    return sum(one.size for one in store.list(CACHE))


def test_a_manager_evicts_when_it_has_written_much(fresh: None) -> None:
    store = MemoryStore()
    with managing(store, 120_000).running():
        for letter in "abcdef":
            workflow.run(large(letter), workflow_id=letter)
        wait_until(lambda: 0 < size_of(store) <= 120_000)
        assert workflow.get_output("a") == b"a" * 50_000


def test_a_manager_without_a_cache_takes_and_keeps_nothing(fresh: None) -> None:
    store = MemoryStore()
    with managing(store, 0).running():
        for name in ("first", "second"):
            workflow.run(large("a"), workflow_id=name)
    assert effects.calls == ["a", "a"]
    assert size_of(store) == 0


def test_the_environment_says_how_large_the_cache_may_become() -> None:
    assert max_cache_bytes({}) == MAX_CACHE_BYTES
    assert max_cache_bytes({"RAY_WORKFLOW_CACHE_BYTES": "0"}) == 0
    with pytest.raises(ValueError, match=r"'10GB'\. Give a number of bytes"):
        max_cache_bytes({"RAY_WORKFLOW_CACHE_BYTES": "10GB"})
