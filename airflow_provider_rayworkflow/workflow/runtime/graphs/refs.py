"""Object references in users' values: stored by value, since the objects die with their owner."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import ray
from ray.exceptions import RayError

from airflow_provider_rayworkflow.workflow.model.codec import dumps
from airflow_provider_rayworkflow.workflow.runtime.private_ray import is_client_handle


class RefPickling:
    """Pickles references as what they refer to; one and the same reference once.

    In a driver of Ray Client, actor handles are pickled by the cluster.

    :param also: asked first, for objects that need more care.
    """

    def __init__(self, also: Callable[[Any], Any] | None = None) -> None:
        self._also = also
        self._values: dict[ray.ObjectRef[Any], bytes] = {}

    def __call__(self, obj: Any) -> Any:
        if self._also is not None:
            reduced = self._also(obj)
            if reduced is not NotImplemented:
                return reduced
        if is_client_handle(obj):
            return pickle.loads, (ray.get(ray.remote(dumps).remote(obj)),)
        if not isinstance(obj, ray.ObjectRef):
            return NotImplemented
        if obj not in self._values:
            self._values[obj] = dumps(ray.get(obj), override=self)
        return restore_ref, (self._values[obj],)

    @contextmanager
    def reading_back(self) -> Iterator[None]:
        """While this lasts, what was pickled so is unpickled for a look: nothing is put anywhere."""
        token = _looked_at.set({value: ref for ref, value in self._values.items()})
        try:
            yield
        finally:
            _looked_at.reset(token)


_looked_at: ContextVar[dict[bytes, ray.ObjectRef[Any]] | None] = ContextVar("refs", default=None)


def restore_ref(value: bytes) -> ray.ObjectRef[Any]:
    """Put a stored value back into the object store."""
    if (looked_at := _looked_at.get()) is not None:
        pickle.loads(value)
        return looked_at[value]
    return put(pickle.loads(value))


def put(value: Any) -> ray.ObjectRef[Any]:
    """As ``ray.put``, which refuses references, and what is nested too deep for it: not so here."""
    if isinstance(value, ray.ObjectRef):
        return ray.put(_Itself(value))
    try:
        return ray.put(value)
    except RayError:
        raise
    except Exception:
        return ray.put(_Pickled(dumps(value, override=RefPickling())))


class _Pickled:
    """What is unpickled as the value that it holds the pickle of."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (self._data,)


class _Itself:
    """What is pickled as the reference that it holds."""

    def __init__(self, ref: ray.ObjectRef[Any]) -> None:
        self._ref = ref

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _itself, (self._ref,)


def _itself(ref: Any) -> Any:
    return ref
