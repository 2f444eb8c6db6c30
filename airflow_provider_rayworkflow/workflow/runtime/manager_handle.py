"""From a process of a cluster to the manager of a storage."""

from __future__ import annotations

from typing import Any

import ray
from ray.util import list_named_actors

from airflow_provider_rayworkflow.workflow.runtime.names import (
    ACTOR_NAME,
    NAMESPACE,
    current_location,
    manager_name,
)
from airflow_provider_rayworkflow.workflow.storage import resolve_storage


def manager_of(location: str | None = None) -> Any:
    """The actor handle of a storage's manager.

    :param location: None for that of the task which runs here, else the cluster's only one, else
        the default storage.
    :raises ValueError: when there is no such manager.
    """
    location = location or current_location()
    name = manager_name(location) if location else _only_name()
    return ray.get_actor(name, namespace=NAMESPACE)


def find_manager(location: str | None = None) -> Any:
    """As :func:`manager_of`; None if there is no such manager."""
    try:
        return manager_of(location)
    except ValueError:
        return None


def has_several_managers() -> bool:
    """True if the cluster has managers of several storages."""
    return len(_names()) > 1


def _only_name() -> str:
    names = _names()
    return names[0] if len(names) == 1 else manager_name(resolve_storage(None))


def _names() -> list[str]:
    return [
        actor["name"]
        for actor in list_named_actors(all_namespaces=True)
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(f"{ACTOR_NAME}-")
    ]
