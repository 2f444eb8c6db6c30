"""A task's values as they are stored, or why they can't be."""

from __future__ import annotations

import os
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import said_by, text_of
from airflow_provider_rayworkflow.workflow.model.codec import Encoded, encode
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import refuse_nodes
from airflow_provider_rayworkflow.workflow.runtime.graphs.refs import RefPickling

#: The largest value that a task may return or save, in bytes; by default there is no limit.
MAX_VALUE_VARIABLE = "RAY_WORKFLOW_MAX_VALUE_BYTES"


def encode_for(task_id: str, value: Any, *, verb: str = "returned") -> Encoded:
    """A value as it is stored.

    :param verb: what the task has done with it.
    :raises TypeError: when it can't be stored, or not be read again: that is found out here, where
        the task that made it is known.
    """
    limit = int(os.environ.get(MAX_VALUE_VARIABLE) or 0)
    refs = RefPickling(also=refuse_nodes)
    try:
        encoded = encode(value, override=refs)
        if limit and encoded.size > limit:
            raise ValueError(f"it has {encoded.size} bytes, and {MAX_VALUE_VARIABLE} is {limit}")
        if encoded.has_objects:
            _read_back(encoded, refs)
        return encoded
    except MemoryError:
        raise
    except BaseException as exc:
        raise TypeError(
            f"Task[id={task_id}] {verb} a {type(value).__name__} that can't be stored: "
            f"{said_by(exc)}. Return plain data, or where the data is."
        ) from exc


def _read_back(encoded: Encoded, refs: RefPickling) -> None:
    try:
        with refs.reading_back():
            encoded.read()
    except MemoryError:
        raise
    except BaseException as exc:
        raise ValueError(
            f"it can be pickled, but not unpickled ({type(exc).__qualname__}: {text_of(exc)})"
        ) from exc
