"""What a task is told of its stop, whatever becomes of the call to the manager."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from airflow_provider_rayworkflow.workflow.runtime.worker.manager_calls import StopNotice


class Manager:
    """Answers each call as the test says."""

    def __init__(self, *answers: Exception | None) -> None:
        self.calls = 0
        self._answers = list(answers)
        self.has_answered = threading.Event()

    def ask(self) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        answer = self._answers.pop(0)
        if not self._answers:
            self.has_answered.set()
        if isinstance(answer, ValueError):
            raise answer
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def test_a_notice_is_given_when_the_manager_says_so():
    assert StopNotice(Manager(None).ask).is_given is True


def test_nothing_is_given_while_the_manager_has_not_answered():
    pending: Future[Any] = Future()
    notice = StopNotice(lambda: pending)
    assert notice.is_given is False
    pending.set_result(None)
    assert notice.is_given is True


def test_it_asks_again_when_the_manager_is_gone_or_fails():
    manager = Manager(ValueError("no such actor"), OSError("it died"), None)
    notice = StopNotice(manager.ask, again_s=0.01)
    assert notice.is_given is False
    assert manager.has_answered.wait(30)
    while not notice.is_given:
        pass
    assert manager.calls == 3


def test_it_asks_no_more_when_the_attempt_has_ended():
    manager = Manager(ValueError("no such actor"), None)
    notice = StopNotice(manager.ask, again_s=0.01)
    notice.close()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(30)
    assert manager.calls == 1
