"""A Ray cluster of this process, and managers on it."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

os.environ |= {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # else Ray would write a token into the user's home
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.locations import to_location
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of


@contextmanager
def cluster(cpus: int = 2) -> Iterator[None]:
    """Ray on this machine, without its dashboard."""
    for left in (2, 1, 0):  # a busy machine may need more time than Ray allows itself
        try:
            ray.init(
                "local",
                num_cpus=cpus,
                object_store_memory=400 * 1024 * 1024,
                include_dashboard=False,
                log_to_driver=False,
            )
            break
        except Exception:
            if not left:
                raise
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def manager(storage: str | None = None, *, sharing: bool | None = None) -> Iterator[str]:
    """A manager with a storage of its own; gives where that is."""
    with tempfile.TemporaryDirectory() as folder:
        root = storage or folder
        workflow.init(storage=root, sharing=sharing)
        location = to_location(root)
        try:
            yield root
        finally:
            ray.kill(manager_of(location))
            while _has_manager(location):
                time.sleep(0.05)


def _has_manager(location: str) -> bool:
    with suppress(ValueError):
        manager_of(location)
        return True
    return False
