"""References among arguments: a large value is stored once, however many tasks take it."""

from __future__ import annotations

from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling

#: A value that is larger, in bytes, becomes the result of a task of its own.
LARGE_REF_BYTES = 64 * 1024


class Held:
    """A value in the place of an argument. Ray pickles what it finds there, to look for nodes in it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Held, (None,)


@ray.remote
def value_of_ref(value: Any) -> Any:
    """What a large reference refers to, for all tasks that take it."""
    return value


# Its value is in the graph: where it is needed again, it is taken from there.
_OPTIONS = ray_options.carry({"task_id": "ray.put", "checkpoint": False, "version": "1"})


class LargeRefs:
    """The references of one graph.

    :param keeps: no value becomes a task, however large it is.
    """

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._found: dict[ray.ObjectRef[Any], Any] = {}

    def behind(self, ref: ray.ObjectRef[Any]) -> Any:
        """What a reference refers to; where that is large, the node whose result it is."""
        if ref not in self._found:
            value = ray.get(ref)
            if not self._keeps and encode(value, override=RefPickling()).size > LARGE_REF_BYTES:
                ray_options.register()
                value = value_of_ref.options(**_OPTIONS).bind(Held(value))
            self._found[ref] = value
        return self._found[ref]
