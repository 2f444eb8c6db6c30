"""Calls what recurses deeper than Python lets a thread go by default."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# What pickles objects that are nested 100,000 deep takes about six calls for each.
_DEPTH = 750_000
# Reserved, not used, as long as nothing gets so deep.
_STACK_BYTES = 1024 * 1024 * 1024

_lock = threading.Lock()


def call_with_deep_stack(function: Callable[[], T]) -> T:
    """Call it in a thread that may recurse 750,000 calls deep, and return what it returns.

    :raises RecursionError: when that does not do.
    """
    done: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            done.set_result(context.run(function))
        except BaseException as exc:
            done.set_exception(exc)

    with _lock, _limits():
        thread = threading.Thread(target=work, name="deep stack", daemon=True)
        thread.start()
        thread.join()
    return done.result()


@contextmanager
def _limits() -> Iterator[None]:
    depth, stack = sys.getrecursionlimit(), threading.stack_size(_STACK_BYTES)
    sys.setrecursionlimit(max(depth, _DEPTH))
    try:
        yield
    finally:
        threading.stack_size(stack)
        sys.setrecursionlimit(depth)
