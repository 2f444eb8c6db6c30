"""One call for all who want the same at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_rayworkflow.workflow.storage.shared_calls import SharedCalls


class Gated:
    """Counts its calls; each waits until it may go on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, key: str) -> None:
        self.calls.append(key)
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        if key == "broken":
            raise OSError("broken")


def wait_for_callers(shared: SharedCalls, count: int) -> None:
    """Until so many share a call that has not begun."""
    pause = threading.Event()
    for _ in range(1_000):
        if any(call.callers == count for call in list(shared._next.values())):
            return
        pause.wait(0.01)
    raise AssertionError("they don't come")


def test_who_comes_while_a_call_is_under_way_shares_the_next_one():
    gated = Gated()
    shared = SharedCalls(gated)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(shared, "a")
        assert gated.begun.acquire(timeout=10)
        later = [pool.submit(shared, "a") for _ in range(4)]
        wait_for_callers(shared, 4)
        assert gated.calls == ["a"]
        gated.go_on.release(2)
        for future in (first, *later):
            future.result(timeout=10)
    assert gated.calls == ["a", "a"]


def test_other_keys_don_t_wait():
    gated = Gated()
    shared = SharedCalls(gated)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(shared, key) for key in "ab"]
        for _ in futures:
            assert gated.begun.acquire(timeout=10)
        gated.go_on.release(2)
        for future in futures:
            future.result(timeout=10)
    assert sorted(gated.calls) == ["a", "b"]


def test_all_who_share_a_call_get_its_error_and_the_next_call_is_a_new_one():
    gated = Gated()
    shared = SharedCalls(gated)
    gated.go_on.release(2)
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            shared("broken")
    assert gated.calls == ["broken", "broken"]
