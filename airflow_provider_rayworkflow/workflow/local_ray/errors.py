"""Errors of the local Ray."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError


class LocalRayError(WorkflowError):
    """The local Ray can't be used; the message says why, and what to do."""


class ManagerStartError(WorkflowError):
    """The local Ray runs, and has no manager for a storage, because that can't be used.

    :ivar is_transient: it may be a moment later.
    """

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient
