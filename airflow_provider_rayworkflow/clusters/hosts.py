"""Which cluster a connection means, and what a workflow needs to run there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airflow_provider_rayworkflow.clusters.engine import ManagerHost, RayEngine
from airflow_provider_rayworkflow.clusters.local_ray import LocalRay
from airflow_provider_rayworkflow.clusters.own_code import can_be_of_all, with_code_of_this_process
from airflow_provider_rayworkflow.clusters.remote import RemoteCluster
from airflow_provider_rayworkflow.connection.object_storage import filesystem_for_ray
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.model.code_variables import code_of


def host_of(hook: RayWorkflowHook, *, code: Mapping[str, str] | None = None) -> ManagerHost:
    """The connection's cluster, or the local Ray of this machine. Nothing is started, or asked.

    :param code: of the workflow that is to be run (:func:`.code_of`), for a local Ray that is started.
    :raises RayWorkflowConnectionError: when the storage_conn_id can't be used.
    """
    cluster = hook.settings.cluster
    if cluster is not None:
        return RemoteCluster(hook, cluster)
    location = location_for_ray(hook)
    return LocalRay(hook.settings, hook.storage_uri, location=location, code=code)


def location_for_ray(hook: RayWorkflowHook) -> str:
    """What opens the storage in the processes of the local Ray; may have credentials in it.

    :raises RayWorkflowConnectionError: when the storage_conn_id can't be used.
    """
    conn_id = hook.settings.storage_conn_id
    if not conn_id:
        return hook.storage_uri
    from airflow_provider_rayworkflow.workflow.runtime.locations import to_location

    return to_location(filesystem_for_ray(hook.storage_uri, conn_id))


def engine_for(
    hook: RayWorkflowHook,
    spec: RunSpec,
    *,
    token: str,
    unreachable_timeout_s: float,
    host: ManagerHost | None = None,
) -> RayEngine:
    """What runs a workflow for one try.

    :param token: unique for the try.
    :param unreachable_timeout_s: how long to keep retrying a cluster or a storage that can't be reached.
    :param host: where, by default :func:`host_of`.
    """
    is_local = hook.settings.cluster is None
    code: dict[str, str] = {}
    if is_local and spec.definition is not None:  # a stored graph has its environment
        # Airflow's processes and Ray's share the files of this machine.
        runtime_env = with_code_of_this_process(spec.runtime_env)
        if can_be_of_all(spec.runtime_env):
            code = code_of(runtime_env)
        spec = replace(spec, runtime_env=runtime_env)
    return RayEngine(
        hook,
        spec,
        host or host_of(hook, code=code),
        token=token,
        # What keeps the local Ray from starting stays: it has tried three times.
        backoff=Backoff(0.0 if is_local else unreachable_timeout_s),
        storage_backoff=Backoff(unreachable_timeout_s),
    )
