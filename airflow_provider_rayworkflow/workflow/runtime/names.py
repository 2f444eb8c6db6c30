"""The names of managers and of providers of HTTP events: a cluster has one of each for each storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from airflow_provider_rayworkflow.workflow.common import HTTP_EVENT_PROVIDER_NAME

#: The class of the actor, as in Ray Workflows; the names of managers begin with it.
ACTOR_NAME = "WorkflowManagementActor"
NAMESPACE = "workflow"

#: Below it, the first application of a cluster that takes HTTP events is reached.
EVENT_ROUTE = "/event"

#: Set in the processes of a local Ray: its keeper starts a manager again that has died. A manager that Ray
#: would restart is what Ray's memory monitor kills first, and with it the task that takes the memory.
KEEPER_VARIABLE = "RAY_WORKFLOW_LOCAL_KEEPER"

#: What a manager's job prints when the manager is up; it stays as long as that lives.
MANAGER_IS_UP = "The workflow manager is up."

_location: ContextVar[str | None] = ContextVar("location", default=None)


def manager_name(location: str) -> str:
    """The name of the actor that is the manager of a storage.

    :param location: as :func:`store_at` takes it; it may have credentials in it, a name has not.
    """
    return f"{ACTOR_NAME}-{_digest(location)}"


def provider_name(location: str) -> str:
    """The name of the Serve application that takes the HTTP events for a storage.

    :param location: as of :func:`manager_name`.
    """
    return f"{HTTP_EVENT_PROVIDER_NAME}-{_digest(location)}"


def event_path(location: str) -> str:
    """The path below which the HTTP events for a storage are sent, whatever else is on the cluster.

    :param location: as of :func:`manager_name`.
    """
    return f"{EVENT_ROUTE}/{_digest(location)}"


def _digest(location: str) -> str:
    return hashlib.sha256(location.encode(errors="surrogatepass")).hexdigest()[:16]


@contextmanager
def at_location(location: str) -> Iterator[None]:
    """While this lasts, a task of a workflow in this storage runs here."""
    token = _location.set(location)
    try:
        yield
    finally:
        _location.reset(token)


def current_location() -> str | None:
    """The storage of the task that runs here; None in a driver."""
    return _location.get()
