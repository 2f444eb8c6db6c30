"""What many threads want done at the same time is done by one of them for all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_rayworkflow.workflow.runtime.service.call_batches import CallBatches


class Gated:
    """Keeps each group until it may go on, and can't do anything about a group with ``"bad"``."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, group: Sequence[str]) -> None:
        self.groups.append(list(group))
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        if "bad" in group:
            raise ValueError("bad")


def wait_for_waiting(groups: CallBatches[str], count: int) -> None:
    pause = threading.Event()
    for _ in range(1_000):
        if len(groups._line.waiting) == count:
            return
        pause.wait(0.01)
    raise AssertionError("they don't come")


def test_those_that_come_while_one_is_under_way_go_together():
    gated = Gated()
    groups = CallBatches(gated, at_once=1, most=3)
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(groups.do, "first")]
        assert gated.begun.acquire(timeout=10)
        for number, name in enumerate("abcde", 1):
            futures.append(pool.submit(groups.do, name))
            wait_for_waiting(groups, number)
        gated.go_on.release(3)
        for future in futures:
            future.result(timeout=10)
    assert gated.groups == [["first"], ["a", "b", "c"], ["d", "e"]]


def test_several_groups_are_under_way_at_once():
    gated = Gated()
    groups = CallBatches(gated, at_once=2, most=9)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(groups.do, name) for name in "ab"]
        for _ in futures:
            assert gated.begun.acquire(timeout=10)
        gated.go_on.release(2)
        for future in futures:
            future.result(timeout=10)
    assert sorted(gated.groups) == [["a"], ["b"]]


def test_an_error_goes_to_all_calls_of_its_group_and_to_no_later_one():
    gated = Gated()
    groups = CallBatches(gated, at_once=1, most=2)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(groups.do, "first")
        assert gated.begun.acquire(timeout=10)
        others = []
        for number, name in enumerate(("bad", "beside", "after"), 1):
            others.append(pool.submit(groups.do, name))
            wait_for_waiting(groups, number)
        gated.go_on.release(3)
        first.result(timeout=10)
        for other in others[:2]:
            with pytest.raises(ValueError, match="bad"):
                other.result(timeout=10)
        others[2].result(timeout=10)
