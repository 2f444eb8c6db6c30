"""The cache as a whole: what is listed, dropped and evicted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.offline.cache import (
    drop_results,
    evict_few_by_few,
    list_results,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.cache_claims import CacheClaims
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CacheEntries
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CACHE
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

HOUR_S = 3_600.0
NOW = 1_000_000.0


def put(
    store: WorkflowStore,
    key: str,
    *,
    age_s: float,
    function: str = "m.f",
    size: int = 10,
    is_large: bool = False,
    expires_at: float = 0.0,
) -> None:
    result = Result(inline=b"x" * size)
    if is_large:
        blob = store.values.write("w", epoch=1, task_id="f", attempt=1, parts=[b"x" * size])
        result = Result(blob=blob)
    source = CacheSource(workflow_id=f"w {key}", task_id="f_1", made_at=NOW - age_s)
    write = CacheEntries(store).entry_put(key, function, source, result, expires_at=expires_at)
    store.bytes.put(write.key, write.data)


def keys(store: WorkflowStore) -> set[str]:
    return {one.key.split("/")[2] for one in store.bytes.list(CACHE)}


def size_of(store: WorkflowStore) -> int:
    return sum(one.size for one in store.bytes.list(CACHE))


def evict(store: WorkflowStore, max_bytes: int) -> int:
    return sum(count for count, _ in evict_few_by_few(store, max_bytes=max_bytes, now=NOW))


@pytest.fixture
def store() -> WorkflowStore:
    return WorkflowStore(MemoryStore())


def names(store: WorkflowStore, **options: Any) -> list[str]:
    problems: list[StorageError] = []
    found = list_results(store, now=NOW, report=problems.append, **options)
    assert problems == []
    return [one.file.key for one in found]


def test_results_are_listed_the_latest_first_with_their_sizes(store: WorkflowStore):
    put(store, "old", age_s=HOUR_S)
    put(store, "new", age_s=1, size=50_000, is_large=True)
    found = list_results(store, now=NOW, report=lambda problem: None)
    assert [one.file.key for one in found] == ["new", "old"]
    assert sum(one.size for one in found) == size_of(store)
    assert found[0].entry is not None
    assert found[0].entry.source.workflow_id == "w new"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "f"}, ["b", "a"]),
        ({"task": "m.f"}, ["b", "a"]),
        ({"task": "f_1"}, ["c", "b", "a"]),
        ({"task": "other.g"}, ["c"]),
        ({"task": "ther.g"}, []),
        ({"older_than_s": 1.5 * HOUR_S}, ["b", "a"]),
        ({"older_than_s": 2.5 * HOUR_S, "task": "f"}, ["a"]),
    ],
    ids=["name", "whole name", "id", "other", "part of a word", "age", "both"],
)
def test_results_are_chosen_by_task_and_age(
    store: WorkflowStore, options: dict[str, Any], expected: list[str]
):
    put(store, "a", age_s=3 * HOUR_S)
    put(store, "b", age_s=2 * HOUR_S)
    put(store, "c", age_s=HOUR_S, function="other.g")
    assert names(store, **options) == expected


def test_one_that_is_damaged_hides_no_other(store: WorkflowStore):
    put(store, "a", age_s=1)
    put(store, "b", age_s=2)
    [path] = [one.key for one in store.bytes.list(f"{CACHE}/a")]
    store.bytes.put(path, b"damaged")
    problems: list[StorageError] = []
    found = list_results(store, now=NOW, report=problems.append)
    assert [(one.file.key, one.entry is None) for one in found] == [("a", True), ("b", False)]
    assert len(problems) == 1
    drop_results(store, found)
    assert keys(store) == set()


def test_what_is_dropped_is_gone_with_its_large_value(store: WorkflowStore):
    put(store, "a", age_s=1, size=50_000, is_large=True)
    put(store, "b", age_s=1)
    drop_results(
        store, [one for one in list_results(store, now=NOW, report=print) if one.file.key == "a"]
    )
    assert keys(store) == {"b"}


# ---- eviction


def test_the_oldest_are_evicted_until_the_cache_has_its_size(store: WorkflowStore):
    for hours in range(10):
        put(store, f"k{hours}", age_s=hours * HOUR_S, size=1_000, is_large=hours % 2 == 0)
    whole = size_of(store)
    assert evict(store, whole) == 0
    evict(store, whole // 2)
    assert size_of(store) <= whole // 2
    left = sorted(keys(store))
    assert left == [f"k{hours}" for hours in range(len(left))]
    assert len(left) >= 4


def test_of_many_results_of_one_minute_only_some_go(store: WorkflowStore):
    for number in range(20):
        put(store, f"k{number}", age_s=1, size=1_000)
    whole = size_of(store)
    evict(store, whole // 2)
    assert 0.3 * whole < size_of(store) <= whole // 2


def test_what_has_expired_is_evicted_whatever_the_size(store: WorkflowStore):
    put(store, "old", age_s=HOUR_S, expires_at=NOW - 1, size=50_000, is_large=True)
    put(store, "new", age_s=HOUR_S, expires_at=NOW + 1)
    evict(store, 10**9)
    assert keys(store) == {"new"}


def test_claims_of_managers_that_are_gone_are_deleted(store: WorkflowStore):
    store.leases.write(
        Lease(manager_id="alive", actor_id="a", process=Process.current(), renewed_at=NOW)
    )
    look = StatusReader(store, patient=True).look()
    for manager_id in ("alive", "gone"):
        claim = CacheClaims(store, manager_id).claim_put(manager_id, [], look)
        assert claim is not None
        store.bytes.put(claim.key, claim.data)
    evict(store, 10**9)
    assert keys(store) == {"alive"}


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 2_000), st.booleans()), max_size=20),
    st.integers(1, 20_000),
)
def test_whatever_is_there_the_size_is_kept_and_younger_ones_stay(
    results: list[tuple[int, int, bool]], max_bytes: int
):
    store = WorkflowStore(MemoryStore())
    for number, (age_s, size, is_large) in enumerate(results):
        put(store, f"k{number}", age_s=age_s, size=size, is_large=is_large)
    before = size_of(store)
    evict(store, max_bytes)
    assert size_of(store) <= max_bytes
    left = keys(store)
    if before <= max_bytes:
        assert len(left) == len(results)
    minutes = [
        (int(NOW - age_s) // 60, f"k{number}" in left) for number, (age_s, *_) in enumerate(results)
    ]
    gone = max((minute for minute, is_left in minutes if not is_left), default=-1)
    assert all(minute >= gone for minute, is_left in minutes if is_left)
