"""Pages wait for a storage in threads of their own, for some seconds, and for no other storage."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fastapi import HTTPException
from waiting import until

from airflow_provider_rayworkflow.plugin.web import responses
from airflow_provider_rayworkflow.plugin.web.lanes import Lanes, NoAnswerError, each, in_turn

FAR = 1e9  # by the event loop's clock


@dataclass(frozen=True, slots=True)
class Asked:
    """The body of an action."""

    conn_id: str


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What a hanging call waits for."""
    event = threading.Event()
    yield event
    event.set()


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.05


async def test_an_answer_and_an_error_are_the_calls():
    made = Lanes()

    def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await made.run("a", fail, until=FAR)
    assert await made.run("a", lambda: 42, until=made.deadline()) == 42
    assert made._hung("a") == 0


async def test_a_call_that_raises_a_timeout_error_itself_is_no_missing_answer():
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Lanes().run("a", fail, until=FAR)


async def test_a_call_that_hangs_is_abandoned_and_counted_until_it_ends(hanging: threading.Event):
    made = Lanes()

    with pytest.raises(NoAnswerError):
        await made.run("a", hanging.wait, until=soon())
    assert made._hung("a") == 1
    hanging.set()
    await until(lambda: made._lanes == {})


async def test_a_storage_that_hangs_has_a_few_threads_and_hinders_no_other(
    hanging: threading.Event,
):
    made = Lanes(threads_each=3)
    begun: list[int] = []

    def hang() -> None:
        begun.append(1)
        hanging.wait()

    deadline = soon()
    asked = [asyncio.create_task(made.run("a", hang, until=deadline)) for _ in range(50)]
    await until(lambda: len(begun) == 3)
    assert await made.run("b", lambda: "b", until=FAR) == "b"
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {NoAnswerError}
    assert (len(begun), made._hung("a")) == (3, 3)
    # All its threads hang: the next caller need not wait to hear it.
    with pytest.raises(NoAnswerError):
        await made.run("a", lambda: "a", until=FAR)
    hanging.set()
    await until(lambda: made._lanes == {})
    assert await made.run("a", lambda: "a", until=FAR) == "a"


async def test_more_callers_than_threads_take_turns():
    made = Lanes(threads_each=2)
    at_once: list[int] = []
    now: set[int] = set()

    def call(number: int) -> int:
        now.add(number)
        at_once.append(len(now))
        time.sleep(0.001)
        now.discard(number)
        return number

    asked = (made.run("a", lambda number=number: call(number), until=FAR) for number in range(40))
    assert await asyncio.gather(*asked) == list(range(40))
    assert max(at_once) <= 2


async def test_a_caller_that_goes_away_gives_its_turn_to_the_next(hanging: threading.Event):
    made = Lanes(threads_each=1)

    first = asyncio.create_task(made.run("a", hanging.wait, until=FAR))
    await asyncio.sleep(0)
    gone = asyncio.create_task(made.run("a", lambda: "gone", until=FAR))
    await asyncio.sleep(0)
    last = asyncio.create_task(made.run("a", lambda: "last", until=FAR))
    await asyncio.sleep(0)
    gone.cancel()
    hanging.set()
    assert await asyncio.gather(first, last) == [True, "last"]
    assert made._lanes == {}


async def test_a_lane_refuses_more_calls_than_may_wait(hanging: threading.Event):
    made = Lanes(threads_each=1, most_waiting=2)

    asked = [asyncio.create_task(made.run("a", hanging.wait, until=FAR)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(NoAnswerError):
        await made.run("a", lambda: "a", until=FAR)
    hanging.set()
    assert await asyncio.gather(*asked) == [True] * 3


# ---- several reads of one call


def test_each_gives_the_results_in_order():
    assert each(lambda number: number * 2, range(100), at_once=8) == list(range(0, 200, 2))
    assert each(lambda number: number, [], at_once=8) == []


async def test_an_answer_that_comes_at_the_deadline_counts(monkeypatch: pytest.MonkeyPatch):
    start = threading.Thread.start

    def start_and_end(thread: threading.Thread) -> None:
        start(thread)
        thread.join()

    monkeypatch.setattr(threading.Thread, "start", start_and_end)
    assert await Lanes().run("a", lambda: 42, until=asyncio.get_running_loop().time()) == 42


def test_each_raises_what_a_call_raises():
    with pytest.raises(ZeroDivisionError):
        each(lambda number: 1 / number, [1, 0, 2], at_once=2)


async def test_what_was_abandoned_reads_nothing_more(hanging: threading.Event):
    made = Lanes()
    read: list[int] = []

    def look(number: int) -> None:
        read.append(number)
        hanging.wait()

    ended = threading.Event()

    def page() -> None:
        try:
            each(look, range(1000), at_once=2)
        except NoAnswerError:
            ended.set()
            raise

    with pytest.raises(NoAnswerError):
        await made.run("a", page, until=soon())
    hanging.set()
    await until(ended.is_set)
    await until(lambda: made._lanes == {})
    assert len(read) <= 2


async def test_an_action_may_take_longer_than_a_page(hanging: threading.Event):
    """A cluster may have to be asked, and code to be sent there."""
    where = {"lanes": Lanes(deadline_s=0.05), "find_lane": lambda conn_id: conn_id}

    def page(conn_id: str) -> None:
        hanging.wait()

    def action(body: Asked) -> str:
        hanging.wait()
        return f"done with {body.conn_id}"

    asked = asyncio.ensure_future(responses.on_storage(action, **where)(body=Asked("ray")))
    with pytest.raises(HTTPException) as raised:
        await responses.on_storage(page, **where)(conn_id="ray")
    assert raised.value.status_code == 503
    hanging.set()
    assert await asked == "done with ray"


async def test_a_system_without_threads_leaves_the_lane_free(monkeypatch):
    made = Lanes(threads_each=1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(NoAnswerError):
                await made.run("a", lambda: 1, until=FAR)
    assert await made.run("a", lambda: 42, until=FAR) == 42


# ---- what takes much memory


async def test_large_pages_of_a_storage_are_read_one_after_the_other():
    made = Lanes()
    now: set[int] = set()
    at_once: list[int] = []

    def read(number: int) -> int:
        now.add(number)
        at_once.append(len(now))
        time.sleep(0.001)
        now.discard(number)
        return number

    calls = (lambda number=number: in_turn(lambda: read(number)) for number in range(20))
    asked = (made.run("a", call, until=FAR) for call in calls)
    assert await asyncio.gather(*asked) == list(range(20))
    assert set(at_once) == {1}


async def test_a_large_page_that_hangs_holds_up_small_pages_and_other_storages_not(
    hanging: threading.Event,
):
    made = Lanes()
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        hanging.wait()

    first = asyncio.create_task(made.run("a", lambda: in_turn(hang), until=FAR))
    await until(begun.is_set)
    assert await made.run("a", lambda: "small", until=FAR) == "small"
    assert await made.run("b", lambda: in_turn(lambda: "large"), until=FAR) == "large"
    with pytest.raises(NoAnswerError):
        await made.run("a", lambda: in_turn(lambda: "large"), until=soon())
    hanging.set()
    await first
    assert await made.run("a", lambda: in_turn(lambda: "large"), until=FAR) == "large"


async def test_a_large_page_that_was_abandoned_before_its_turn_is_not_read(
    hanging: threading.Event,
):
    made = Lanes()
    begun = threading.Event()
    read: list[str] = []

    def hang() -> None:
        begun.set()
        hanging.wait()

    first = asyncio.create_task(made.run("a", lambda: in_turn(hang), until=FAR))
    await until(begun.is_set)
    with pytest.raises(NoAnswerError):
        await made.run("a", lambda: in_turn(lambda: read.append("late")), until=soon())
    hanging.set()
    await first
    await made.run("a", lambda: in_turn(lambda: read.append("next")), until=FAR)
    assert read == ["next"]


async def test_an_error_of_a_large_page_is_its_callers():
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Lanes().run("a", lambda: in_turn(fail), until=FAR)
