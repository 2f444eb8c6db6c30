"""References among arguments: a large value is stored once, however many tasks take it."""

from __future__ import annotations

from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.authoring.node import Call
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling

#: A value that is larger, in bytes, becomes the result of a task of its own.
LARGE_REF_BYTES = 64 * 1024


def value_of_ref(value: Any) -> Any:
    """What a large reference refers to, for all tasks that take it."""
    return value


# Its value is in the graph: where it is needed again, it is taken from there.
_OPTIONS = GivenOptions(workflow={"task_id": "ray.put", "checkpoint": False, "version": "1"})


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
                value = Call(value_of_ref, (value,), {}, _OPTIONS)
            self._found[ref] = value
        return self._found[ref]
