"""Ray for the keeper of a local Ray: the keeper's process is the driver, and Ray ends with it.

Ray asks the kernel to kill its processes at the end of the *thread* that started them, so that must
be the main thread. Its workers end when Ray's node does.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size, StartedCluster
from airflow_provider_rayworkflow.workflow.runtime.names import KEEPER_VARIABLE
from airflow_provider_rayworkflow.workflow.runtime.private_ray import has_local_node_ended
from airflow_provider_rayworkflow.workflow.runtime.service import connect

log = get_logger(__name__)

_ATTEMPTS = 5
_MB = 1024 * 1024
_CALL_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 30.0


class RayOfMachine:
    """A :class:`LocalCluster` that is Ray."""

    def __init__(self) -> None:
        self._managers: dict[str, Any] = {}
        self._session_dir = ""
        self._is_stopping = False

    def start(self, size: Size, *, token_file: str) -> StartedCluster:
        os.environ["RAY_AUTH_TOKEN_PATH"] = token_file
        os.environ[KEEPER_VARIABLE] = "1"
        # Ray says by nothing better that the machine is too busy for it.
        for attempt in range(1, _ATTEMPTS + 1):
            begun = time.monotonic()
            try:
                self._session_dir = _init(size)
                log.info("Ray started in %.1f s", time.monotonic() - begun)
                break
            except Exception as exc:
                ray.shutdown()
                if attempt == _ATTEMPTS:
                    raise
                log.warning("Ray did not start, trying again: %s", said_by(exc))
        _import_in_worker.remote()  # beside the manager's start
        context = ray.get_runtime_context()
        return StartedCluster(
            cluster_id=context.get_session_name(),
            address=context.gcs_address,
            size=_size_of_ray(asked=size),
        )

    def has_ended(self) -> bool:
        return has_local_node_ended()

    def start_manager(self, storage: str, location: str) -> None:
        self._check_runs()
        handle = connect.start_manager(location)
        ray.get(handle.wake.remote())  # it recovers what the one before it held, if that has died
        self._managers[storage] = handle

    def held(self, storage: str) -> int:
        self._check_runs()
        handle = self._managers[storage]
        held: int = ray.get(handle.ask.remote("count_held"), timeout=_CALL_TIMEOUT_S)
        return held

    def _check_runs(self) -> None:
        # A call of Ray after its end would end this process, or start another Ray.
        if self._is_stopping:
            raise RuntimeError("The local Ray ends.")

    def stop(self) -> None:
        self._is_stopping = True  # a call that is under way ends while the managers close
        managers = list(self._managers.items())  # other threads may add to them
        closing = {storage: one.close.remote() for storage, one in managers}
        for storage, ref in closing.items():
            try:
                ray.get(ref, timeout=_CLOSE_TIMEOUT_S)
            except (RayError, GetTimeoutError) as exc:  # its lease runs out by itself
                log.warning("The manager of %s did not close: %s", storage, said_by(exc))
        has_failed = self.has_ended()
        ray.shutdown()
        if not has_failed:  # Ray never deletes its logs and sockets: each start would leave some
            shutil.rmtree(self._session_dir, ignore_errors=True)


@ray.remote(num_cpus=0)
def _import_in_worker() -> None:
    """Have one of the workers that come with Ray import what tasks need, before the first one does."""
    from airflow_provider_rayworkflow.workflow.runtime.worker import packs  # noqa: F401


def _init(size: Size) -> str:
    """Start Ray; the folder of its session."""
    memory_mb = size.object_store_memory_mb
    context = ray.init(
        address="local",  # never a cluster that RAY_ADDRESS or a file of this machine names
        num_cpus=size.num_cpus,
        num_gpus=size.num_gpus,
        object_store_memory=memory_mb and memory_mb * _MB,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,  # what tasks print goes to the storage
    )
    address_info: dict[str, str] = context.address_info  # type: ignore[attr-defined]
    return address_info["session_dir"]


def _size_of_ray(*, asked: Size) -> Size:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    memory_mb = int(resources.get("object_store_memory", 0) / _MB)
    return Size(
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        # Ray rounds what it was asked for.
        object_store_memory_mb=asked.object_store_memory_mb or memory_mb,
    )
