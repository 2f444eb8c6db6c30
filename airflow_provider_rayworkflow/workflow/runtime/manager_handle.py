"""The manager of this process's cluster: its name there, as in Ray Workflows, and its handle."""

from __future__ import annotations

from typing import Any

import ray

ACTOR_NAME = "WorkflowManagementActor"
NAMESPACE = "workflow"


def get_manager() -> Any:
    """The manager's actor handle.

    :raises ValueError: when the cluster has no manager.
    """
    return ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)


def find_manager() -> Any:
    """The manager's actor handle, None if the cluster has no manager."""
    try:
        return get_manager()
    except ValueError:
        return None
