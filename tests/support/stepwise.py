"""Something that goes on by as many storage calls as a test lets it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

_CALLS = {
    "put",
    "put_if_absent",
    "put_all",
    "get",
    "copy",
    "list",
    "delete",
    "delete_folder",
}


class Stepwise:
    """Does something with a store in a thread of its own, which stands still before a storage call.

    :ivar is_done: nothing is left to do.
    """

    def __init__(self, store: ByteStore, act: Callable[[ByteStore], object]) -> None:
        self.is_done = False
        self._store = store
        self._left = 0
        self._problem: BaseException | None = None
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()
        self._stands.acquire()

    def step(self, calls: int = 1) -> None:
        """Go on by some storage calls."""
        if self.is_done or not calls:
            return
        self._left = calls
        self._go.release()
        self._stands.acquire()
        if self._problem is not None:
            raise self._problem

    def finish(self) -> None:
        """Go on to the end."""
        while not self.is_done:
            self.step(1000)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _CALLS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            return found(*args, **kwargs)

        return call

    def _wait(self) -> None:
        if self._left == 0:
            self._stands.release()
            self._go.acquire()
        self._left -= 1

    def _run(self, act: Callable[[ByteStore], object]) -> None:
        try:
            act(self)  # type: ignore[arg-type]
        except BaseException as exc:
            self._problem = exc
        self.is_done = True
        self._stands.release()
