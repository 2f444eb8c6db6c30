"""Objects that a listing leaves out, because they can't be read: reported, so that the others are there."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

log = get_logger(__name__)


#: Told why something is left out of an answer about many workflows.
Report = Callable[[StorageError], None]


def log_left_out(problem: StorageError) -> None:
    """The :data:`Report` of those who give no other."""
    log.warning("A workflow is left out: %s", problem)
