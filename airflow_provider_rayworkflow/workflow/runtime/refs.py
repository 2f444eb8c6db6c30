"""Object references in users' values: stored by value, since the objects die with their owner."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.codec import dumps
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


def restore_ref(value: bytes) -> ray.ObjectRef[Any]:
    """Put a stored value back into the object store."""
    return put(pickle.loads(value))


def put(value: Any) -> ray.ObjectRef[Any]:
    """As ``ray.put``, which refuses references: here one can refer to another."""
    return ray.put(_Itself(value) if isinstance(value, ray.ObjectRef) else value)


class _Itself:
    """What is pickled as the reference that it holds."""

    def __init__(self, ref: ray.ObjectRef[Any]) -> None:
        self._ref = ref

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _itself, (self._ref,)


def _itself(ref: Any) -> Any:
    return ref
