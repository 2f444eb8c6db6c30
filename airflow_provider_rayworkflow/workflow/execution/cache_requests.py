"""What tasks ask of the cache, and what they get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.cache_options import CacheOptions, CacheSource
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput, Result


class Cached(NamedTuple):
    """A result that was found in the cache, and is the asking workflow's by now.

    :ivar json_output: where the result is asked for as the workflow's output, and is JSON.
    """

    result: Result
    source: CacheSource
    json_output: JsonOutput | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CacheRequest:
    """A task that has all that it takes, and asks for its result.

    :ivar key: of the result (:func:`.cache_key`).
    :ivar wants_json: the result is the workflow's output.
    :ivar tell: called with the result, or with None: then the task runs, and others wait for it.
    :ivar wait: called with what computes the result, for people; the request is told later.
    """

    key: str
    options: CacheOptions
    workflow_id: str
    epoch: int
    task_id: str
    wants_json: bool
    tell: Callable[[Cached | None], None]
    wait: Callable[[str], None]

    @property
    def task(self) -> str:
        """The task that asks, for people."""
        return f"task {self.task_id} of workflow {self.workflow_id}"
