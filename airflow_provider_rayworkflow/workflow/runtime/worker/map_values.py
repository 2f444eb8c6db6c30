"""Results of maps in a worker and in a caller's process: how they are stored, and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from airflow_provider_rayworkflow.workflow.authoring.map_result import LoadResult, MapResult
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.model.codec import (
    MAX_JSON_OUTPUT_BYTES,
    Encoded,
    json_output,
)
from airflow_provider_rayworkflow.workflow.model.records import Encoding, JsonOutput, Result
from airflow_provider_rayworkflow.workflow.model.stored_map import StoredMap
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.names import current_location
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

#: Of larger results, no output as JSON is made.
_MAX_LOADED_BYTES = 4 * MAX_JSON_OUTPUT_BYTES

#: Takes an error of the storage.
OnError = Callable[[StorageError], None]


class Load(Protocol):
    """Loads the value of a result from a store, and tells errors of the storage."""

    def __call__(
        self,
        store: WorkflowStore,
        result: Result,
        on_error: OnError | None,
        workflow_id: str,
    ) -> Any: ...


class MapLoader:
    """Loads what the result of a map refers to.

    :param load: loads one result.
    :param on_error: told each error of the storage before it is raised.
    :ivar workflow_id: the workflow whose output it is, for a caller; ``""`` for what a task takes.
    """

    def __init__(
        self,
        store: WorkflowStore,
        load: Load,
        *,
        location: str | None = None,
        on_error: OnError | None = None,
        workflow_id: str = "",
    ) -> None:
        self.workflow_id = workflow_id
        self._store = store
        self._load = load
        self._location = location or current_location()
        self._on_error = on_error

    def __call__(self, result: Result) -> Any:
        try:
            return self._load(self._store, result, self._on_error, self.workflow_id)
        except StorageError as exc:
            if self._on_error is not None:
                self._on_error(exc)
            raise

    def __reduce__(self) -> Any:
        if self._location is None:
            raise TypeError(
                "The result of a map can't be pickled here: its values are read from the storage, which the "
                "reader would not know. Pass list(result), or the values that are needed."
            )
        return _loader_at, (self._location, self._load, self.workflow_id)


def _loader_at(location: str, load: Load, workflow_id: str) -> MapLoader:
    return MapLoader(store_at(location), load, location=location, workflow_id=workflow_id)


def restored(
    store: WorkflowStore, result: Result, load: Load, on_error: OnError | None, workflow_id: str
) -> MapResult[Any]:
    """The result of a map from its stored form.

    :param load: and ``on_error``, ``workflow_id``: of :class:`MapLoader`.
    :raises StorageError: when it is missing or damaged.
    """
    data = result.inline
    if data is None and result.blob is not None:
        data = bytes(store.values.read(result.blob))
    loader = MapLoader(store, load, on_error=on_error, workflow_id=workflow_id)
    return MapResult(StoredMap.from_bytes(data or b""), loader)


def as_stored(value: StoredMap | MapResult[Any]) -> Encoded:
    """The stored form of the result of a map.

    :raises TypeError: where a value of it has no checkpoint, or it is of another workflow.
    """
    if isinstance(value, MapResult):
        value.check_own()
    data = value.to_bytes()
    return Encoded(encoding=Encoding.MAP, parts=(data,), size=len(data))


def with_stamp(result: Result, value: StoredMap | MapResult[Any]) -> Result:
    """The result with what stands for its content: the values, and not where they are."""
    stored = value.stored if isinstance(value, MapResult) else value
    blob = result.blob and replace(result.blob, sum=str(stored.stamp))
    return result._replace(blob=blob)


def as_json(value: StoredMap | MapResult[Any], load: LoadResult) -> JsonOutput:
    """The values as a list for readers that must not unpickle, as long as that is small."""
    found = value if isinstance(value, MapResult) else MapResult[Any](value, load)
    size, values = 0, []
    for position, (_, result) in enumerate(found.results()):
        if result.inline is None or (size := size + len(result.inline)) > _MAX_LOADED_BYTES:
            break
        values.append(found[position])
    described = json_output(values)
    if len(values) < len(found) or described.problem:
        stamp = found.stored.stamp
        return JsonOutput(
            problem=f"the output is the result of a map with {stamp.values} values ({stamp.failed} items "
            "failed), and no small list of JSON types; reduce it in one more task, or read it by get_output"
        )
    return described
