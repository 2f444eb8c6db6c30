"""A try shows what the workflow's tasks print: each line once, at its level, over deferrals and tries."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_rayworkflow.tries import workflow_log
from airflow_provider_rayworkflow.tries.workflow_log import LOOK_S, REMEMBER_S, WorkflowLog
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore


class Counting(MemoryStore):
    is_down = False
    lists = 0

    def list(self, folder: str) -> Any:
        self.lists += 1
        if self.is_down:
            raise DataLoadError("The storage is down.")
        return super().list(folder)


class Given:
    """A log in a storage, and what was shown of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger=workflow_log.output.name)
        self.bytes = Counting()
        self.store = WorkflowStore(self.bytes)
        self.caplog = caplog
        self.now = 100.0
        self.memory: Any = None
        self._numbers: dict[int, int] = {}

    def write(
        self, *texts: object, epoch: int = 1, level: Any = "INFO", task_id: str = "load"
    ) -> None:
        number = self._numbers[epoch] = self._numbers.get(epoch, 0) + 1
        lines = [LogLine(5.25, level, task_id, 1, str(text)) for text in texts]
        put = self.store.logs.put("w", epoch, number, lines)
        self.bytes.put(put.key, put.data)

    def log(self, **limits: int) -> WorkflowLog:
        def remember(value: Any) -> None:
            self.memory = value

        return WorkflowLog(
            "w", remembered=self.memory, remember=remember, clock=lambda: self.now, **limits
        )

    @property
    def shown(self) -> list[str]:
        return [r.getMessage() for r in self.caplog.records if r.name == workflow_log.output.name]


@pytest.fixture
def given(caplog: pytest.LogCaptureFixture) -> Given:
    return Given(caplog)


def test_lines_have_their_level_time_and_task(given: Given):
    given.write("hello", level="WARNING")
    given.write("[a note]", task_id="")
    given.log().copy(given.store, is_last=True)
    first, second = given.caplog.records
    assert (first.levelno, first.created, first.getMessage()) == (30, 5.25, "[load] hello")
    assert second.getMessage() == "[a note]"


def test_each_line_is_shown_once_and_looks_are_seldom(given: Given):
    log = given.log()
    given.write(1)
    log.copy(given.store)
    given.write(2)
    for _ in range(10):
        log.copy(given.store)
    assert (given.shown, given.bytes.lists) == (["[load] 1"], 1)
    given.now += LOOK_S
    log.copy(given.store)
    given.write(3)
    log.copy(given.store, is_last=True)
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] 1", "[load] 2", "[load] 3"]


def test_a_deferral_carries_how_far_it_is(given: Given):
    before = given.log()
    given.write(1, 2)
    before.copy(given.store)
    given.write(3)
    trigger = WorkflowLog("w", clock=lambda: given.now)
    trigger.rejoin(before.carried)
    assert trigger.look(given.store)
    trigger.show()
    given.write(4)
    after = given.log()
    after.rejoin(trigger.carried)
    after.copy(given.store, is_last=True)
    assert given.shown == [f"[load] {number}" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "carried", [None, {}, {"cursor": "x", "left": 5}, {"cursor": [1], "left": 5}, []]
)
def test_what_is_carried_may_be_of_no_use(given: Given, carried: Any):
    given.write(1)
    log = given.log()
    log.rejoin(carried)
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] 1"]


def test_a_new_run_shows_its_own_lines_only(given: Given):
    given.write("old", epoch=1)
    log = given.log()
    log.begin(epoch_before=1, is_new_run=True)
    given.write("new", epoch=2)
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] new"]


def test_a_try_that_attaches_shows_the_run_from_its_beginning(given: Given):
    given.write("old", epoch=1)
    given.write("this run", epoch=2)
    log = given.log()
    log.begin(epoch_before=2, is_new_run=False)
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] this run"]


@pytest.mark.parametrize("is_new_run", [True, False])
def test_a_later_try_goes_on_where_an_earlier_one_was(given: Given, is_new_run: bool):
    first = given.log()
    first.begin(epoch_before=0, is_new_run=True)
    given.write(1)
    first.copy(given.store, is_last=True)
    given.write(2)  # after the first try has ended
    second = given.log()
    second.begin(epoch_before=1, is_new_run=is_new_run)
    given.write(3, epoch=2)
    second.copy(given.store, is_last=True)
    assert given.shown == ["[load] 1", "[load] 2", "[load] 3"]


def test_how_far_it_is_is_remembered_while_it_waits(given: Given):
    log = given.log()
    given.write(1)
    log.copy(given.store)
    assert given.memory is None
    given.now += REMEMBER_S
    given.write(2)
    log.copy(given.store)
    assert given.memory == {"workflow_id": "w", "cursor": "1.2.-1"}


def test_a_workflow_that_was_deleted_and_begun_anew_is_shown_from_its_beginning(given: Given):
    given.memory = {"workflow_id": "w", "cursor": "9.9.-1"}
    log = given.log()
    log.begin(epoch_before=0, is_new_run=True)
    given.write(1)
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] 1"]


def test_what_is_remembered_of_another_workflow_does_not_count(given: Given):
    given.memory = {"workflow_id": "other", "cursor": "9.9.-1"}
    given.write(1)
    given.log().copy(given.store, is_last=True)
    assert given.shown == ["[load] 1"]


def test_a_memory_that_fails_does_no_harm(given: Given):
    def remember(value: Any) -> None:
        raise OSError("no API server")

    given.write(1)
    WorkflowLog("w", remember=remember).copy(given.store, is_last=True)
    assert given.shown == ["[load] 1"]


def test_much_is_cut_with_word_of_where_the_rest_is(given: Given):
    given.write(*["x" * 100] * 50)
    given.write("more")
    log = given.log(most_characters=1000)
    log.copy(given.store, is_last=True)
    given.now += LOOK_S
    log.copy(given.store)
    assert len(given.shown) == 11
    assert "rayworkflow logs w" in given.shown[-1]
    again = given.log()
    again.rejoin(log.carried)
    again.copy(given.store, is_last=True)
    assert len(given.shown) == 11


def test_a_hundred_thousand_lines_come_in_order(given: Given):
    for start in range(0, 100_000, 5_000):
        given.write(*range(start, start + 5_000))
    given.log().copy(given.store, is_last=True)
    assert given.shown == [f"[load] {number}" for number in range(100_000)]


def test_a_storage_that_is_down_is_told_once_and_nothing_is_lost(given: Given):
    log = given.log()
    given.write(1)
    given.bytes.is_down = True
    for _ in range(3):
        log.copy(given.store, is_last=True)
    given.bytes.is_down = False
    log.copy(given.store, is_last=True)
    assert given.shown == ["[load] 1"]
    assert sum("can't be read" in text for text in given.caplog.messages) == 1


def test_a_damaged_piece_is_named(given: Given):
    given.write(1)
    (file,) = given.store.logs.files("w")
    given.bytes.put(file.key, b"x")
    given.write(2)
    given.log().copy(given.store, is_last=True)
    assert given.shown == ["[load] 2"]
    assert any(file.key in text for text in given.caplog.messages)


def test_hostile_text_is_escaped(given: Given):
    given.write("\x1b[2J", task_id="a\nb")
    given.log().copy(given.store, is_last=True)
    assert given.shown == ["[a\\nb] \\x1b[2J"]
