"""Calls of a running task's services to the manager."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of

#: Calls a method of the manager: its name, and its arguments.
Ask = Callable[..., Future[Any]]

_AGAIN_S = 1.0


def manager_caller(location: str | None) -> Ask:
    """What calls the manager of a storage, from any thread.

    :param location: as for :func:`.manager_of`.
    """

    def ask(method: str, *args: Any) -> Future[Any]:
        future: Future[Any] = manager_of(location).ask.remote(method, *args).future()
        return future

    return ask


class StopNotice:
    """Whether an attempt is to be stopped, as the manager says when that is so.

    :param ask: begins to ask; the answer comes when it is to be stopped.
    :param again_s: when to ask again after an error, in seconds.
    :ivar is_given: it is to be stopped.
    """

    def __init__(self, ask: Callable[[], Future[Any]], *, again_s: float = _AGAIN_S) -> None:
        self.is_given = False
        self._ask = ask
        self._again_s = again_s
        self._is_closed = False
        self._begin()

    def close(self) -> None:
        """Ask no more."""
        self._is_closed = True

    def _begin(self) -> None:
        if self._is_closed:
            return
        try:
            self._ask().add_done_callback(self._take)
        except Exception:  # the manager is being restarted
            self._begin_later()

    def _take(self, answer: Future[Any]) -> None:
        try:
            answer.result()
        except BaseException:  # that of a manager that is gone, or of this process's end
            self._begin_later()
        else:
            self.is_given = True

    def _begin_later(self) -> None:
        timer = threading.Timer(self._again_s, self._begin)
        timer.daemon = True
        timer.start()
