"""A time limit for calls that have none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def in_thread(function: Callable[[], T], *, name: str) -> Future[T]:
    """Call a function in a thread of its own, a daemon: what hangs keeps no process from ending.

    :param name: the thread's.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as exc:
            answer.set_exception(exc)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer


def within(timeout_s: float, answer: Future[T]) -> T:
    """The answer of a call, or what it raised.

    :param timeout_s: in seconds.
    :raises TimeoutError: when the call takes longer; it is left to itself then.
    """
    if not wait([answer], timeout_s).done:
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    return answer.result()
