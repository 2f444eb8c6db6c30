"""The names of managers: a cluster has one manager for each storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: The class of the actor, as in Ray Workflows; the names of managers begin with it.
ACTOR_NAME = "WorkflowManagementActor"
NAMESPACE = "workflow"


_location: ContextVar[str | None] = ContextVar("location", default=None)


def manager_name(location: str) -> str:
    """The name of the actor that is the manager of a storage.

    :param location: as :func:`store_at` takes it; it may have credentials in it, a name has not.
    """
    digest = hashlib.sha256(location.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{ACTOR_NAME}-{digest}"


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
