"""An attempt that is silent for too long is noticed; one that beats is not, however late its beats come."""

from __future__ import annotations

import asyncio
import time

from airflow_provider_rayworkflow.workflow.execution.heartbeats import Heartbeats
from airflow_provider_rayworkflow.workflow.model.graph import Shape
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, TaskRun


def errand(heartbeat_timeout_s: float | None, attempt: int = 1) -> Errand:
    run = TaskRun(
        *("w", 1, "a", attempt, b"", ((), Shape()), b"", ()),
        checkpoint=True,
        wants_json=False,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    return Errand(run)


class Watched:
    """Heartbeats, and what they have told."""

    def __init__(self, slack_s: float = 0.0) -> None:
        self.silent: list[Errand] = []
        self.told = asyncio.Event()
        self.beats: Heartbeats[Errand] = Heartbeats(self._tell, slack_s=slack_s)

    def _tell(self, errand: Errand) -> None:
        self.silent.append(errand)
        self.told.set()


async def test_an_attempt_that_is_silent_is_told_once():
    watched, one = Watched(), errand(0.01)
    watched.beats.beat(one)
    await watched.told.wait()
    assert watched.silent == [one]
    watched.beats.ended(one)
    assert watched.beats.known("a", 1) is None


async def test_each_beat_gives_the_whole_time_again():
    watched, one, other = Watched(), errand(0.05), errand(0.05, attempt=2)
    begun = asyncio.get_running_loop().time()
    watched.beats.beat(one)
    for _ in range(4):
        await asyncio.sleep(0.02)
        watched.beats.beat(other)
    await watched.told.wait()
    assert watched.silent == [one]
    watched.told.clear()
    await watched.told.wait()
    assert watched.silent == [one, other]
    assert asyncio.get_running_loop().time() - begun >= 4 * 0.02 + 0.05


async def test_an_attempt_that_has_ended_or_may_be_silent_is_not_told():
    watched = Watched()
    ended, unwatched, last = errand(0.0), errand(None, attempt=2), errand(0.01, attempt=3)
    for one in (ended, unwatched, last):
        watched.beats.beat(one)
    watched.beats.ended(ended)
    await watched.told.wait()
    assert watched.silent == [last]


async def test_beats_that_waited_in_a_late_loop_count():
    watched, late, silent = Watched(slack_s=0.4), errand(0.01), errand(0.01, attempt=2)
    for one in (late, silent):
        watched.beats.beat(one)
    loop = asyncio.get_running_loop()

    def be_late() -> None:
        time.sleep(0.3)  # the first of the two steps is due, and a beat waits behind it
        loop.call_soon(watched.beats.beat, late)

    loop.call_soon(be_late)
    await watched.told.wait()
    assert watched.silent == [silent]


async def test_an_attempt_is_known_by_its_beats():
    watched, one, again = Watched(), errand(60.0), errand(60.0)
    watched.beats.beat(one)
    assert watched.beats.known("a", 1) is one
    watched.beats.beat(again)
    watched.beats.ended(one)
    assert watched.beats.known("a", 1) is again
    watched.beats.ended(again)
    assert watched.beats.known("a", 1) is None
