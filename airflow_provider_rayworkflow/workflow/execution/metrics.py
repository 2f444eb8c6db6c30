"""The calls by which a manager reports its figures. :mod:`.runtime.metrics` keeps them on Ray."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import AttemptEnd


class Metrics:
    """Drops all figures; a subclass keeps them.

    The methods are called in the manager's event loop, and so must not block.
    """

    def workflows_held(self, *, running: int, pending: int) -> None:
        """So many workflows run, and so many wait for a slot, from now on."""

    def workflow_ended(self, record: StatusRecord) -> None:
        """A workflow has left this manager with the status that the record has."""

    def tasks_ended(self, completions: Sequence[AttemptEnd]) -> None:
        """Attempts of tasks have come back."""

    def attempt_failed(self, cause: Cause) -> None:
        """An attempt of a task has failed, and was not stopped; it may be tried again."""
