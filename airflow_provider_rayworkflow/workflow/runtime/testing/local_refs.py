"""Object references without a cluster: what ``ray.put``, ``get`` and ``wait`` are in a test.

A reference holds its value pickled, as Ray's object store does: each ``get`` gives a new object,
and what can't be pickled is refused.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from airflow_provider_rayworkflow.workflow.model.codec import decode, dumps, encode
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling
from airflow_provider_rayworkflow.workflow.runtime.service.task_errors import as_task_error


class LocalRef(ray.ObjectRef):  # type: ignore[type-arg]  # it is generic for type checkers only
    """A reference to a value of this process.

    :param loading: what gives a function that makes the value anew.
    """

    def __init__(self, loading: Future[Callable[[], Any]]) -> None:
        super().__init__(os.urandom(28), skip_adding_local_ref=True)
        self._loading = loading
        _alive[self.binary()] = self

    def get(self, timeout: float | None) -> Any:
        try:
            load = self._loading.result(timeout)
        except TimeoutError:
            raise GetTimeoutError(f"Get timed out: {self} was not ready in {timeout} s.") from None
        except CancelledError:
            raise RayActorError(error_msg="The workflow manager of this test is gone.") from None
        return load()

    def future(self) -> Future[Any]:
        """Done when the value is there; for ``wait``."""
        return self._loading

    def __reduce__(self) -> Any:
        return _find, (self.binary(),)


_alive: WeakValueDictionary[bytes, LocalRef] = WeakValueDictionary()


def _find(binary: bytes) -> LocalRef:
    return _alive[binary]


async def outcome_of(call: Awaitable[Any]) -> Callable[[], Any]:
    """Await it, and return what gives its result or raises its error anew."""
    try:
        data = dumps(await call)
    except Exception as exc:
        error = dumps(exc)
        return lambda: _raise(error)
    return lambda: pickle.loads(data)


def _raise(data: bytes) -> Any:
    raise as_task_error(pickle.loads(data))


@contextmanager
def local_refs() -> Iterator[None]:
    """While this lasts, ``ray.get``, ``put`` and ``wait`` know local references besides Ray's own.

    ``ray.put`` makes local ones unless this process is connected to a cluster.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            vars(ray).update(get=_get, put=_put, wait=_wait)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                vars(ray).update(get=_ray_get, put=_ray_put, wait=_ray_wait)


_lock = threading.Lock()
_users = 0
_ray_get: Any = ray.get
_ray_put: Any = ray.put
_ray_wait: Any = ray.wait


def _put(value: Any, **options: Any) -> Any:
    if ray.is_initialized():
        return _ray_put(value, **options)
    encoded = encode(value, override=RefPickling())
    data = b"".join(encoded.parts)
    loading: Future[Callable[[], Any]] = Future()
    loading.set_result(lambda: decode(encoded.encoding, data))
    return LocalRef(loading)


def _get(refs: Any, *, timeout: float | None = None, **options: Any) -> Any:
    if isinstance(refs, LocalRef):
        return refs.get(timeout)
    if not _has_local(refs):
        return _ray_get(refs, timeout=timeout, **options)
    end = None if timeout is None else time.monotonic() + timeout
    return [_get(ref, timeout=_left(end), **options) for ref in refs]


def _wait(
    refs: Any, *, num_returns: int = 1, timeout: float | None = None, **options: Any
) -> tuple[list[Any], list[Any]]:
    if not _has_local(refs):
        answer: tuple[list[Any], list[Any]] = _ray_wait(
            refs, num_returns=num_returns, timeout=timeout, **options
        )
        return answer
    end = None if timeout is None else time.monotonic() + timeout
    futures = [ref.future() for ref in refs]
    while sum(future.done() for future in futures) < min(num_returns, len(futures)):
        pending = [future for future in futures if not future.done()]
        left = _left(end)
        wait_for_futures(pending, timeout=left, return_when=FIRST_COMPLETED)
        if left == 0:
            break
    done = [ref for ref, future in zip(refs, futures, strict=True) if future.done()]
    ready = done[:num_returns]
    return ready, [ref for ref in refs if ref not in ready]


def _has_local(refs: Any) -> bool:
    return isinstance(refs, Sequence) and any(isinstance(ref, LocalRef) for ref in refs)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
