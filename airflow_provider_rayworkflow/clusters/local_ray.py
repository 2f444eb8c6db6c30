"""The local Ray of this machine, for tries without a cluster: started by the first that needs it.

What lives on its own is in :mod:`..workflow.local_ray`, which imports no Airflow: the keeper's process
and the command ``rayworkflow local`` need none. Here is what a connection asks of it, in Airflow's
errors. No call connects to Ray, or imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow_provider_rayworkflow.connection.settings import ConnectionSettings
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.environment import environment_name, state_root
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError, ManagerStartError
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.visit import LocalRayVisit


class LocalRay:
    """A try's use of the local Ray, which does not end for idleness before :meth:`close`.

    A try makes one, calls :meth:`ensure` before it submits, again while what it submitted has not
    begun, and :meth:`close` once it has begun. The end of its process is as good as :meth:`close`.

    :param settings: of a connection without a cluster.
    :param storage: the URI or path, which names the manager.
    :param location: what opens it in Ray's processes, where that is another thing: a file
        system as an object, for a ``storage_conn_id``. Kept in a file that only this user can
        read, until the manager is up.
    :param code: of the workflow (:func:`.code_of`), for a local Ray that is started.
    :param make_launcher: called with ``signing_secret`` and ``code``; makes what starts the keeper.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        storage: str,
        *,
        location: str = "",
        code: Mapping[str, str] | None = None,
        make_launcher: Callable[..., Launcher] = Launcher,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._location = location
        self._code = code or {}
        self._make_launcher = make_launcher
        self._visit: LocalRayVisit | None = None

    def ensure(self) -> str:
        """Return when a manager for the storage is up on this machine.

        :returns: the id of the cluster, for submissions.
        :raises RayWorkflowStorageError: when Ray's side can't use the storage.
        :raises RayWorkflowUnreachableError: when Ray does not start, or not in time.
        """
        try:
            if self._visit is None:
                self._visit = self._make_visit()
            return self._visit.ensure(self._storage, self._location).cluster_id
        except ManagerStartError as exc:
            raise RayWorkflowStorageError(str(exc), is_transient=exc.is_transient) from exc
        except (LocalRayError, StorageError) as exc:  # the latter of the state folder
            raise RayWorkflowUnreachableError(str(exc)) from exc

    def close(self) -> None:
        """Leave. Never raises, and waits for no lock: a handler of signals may call it."""
        if self._visit is not None:
            self._visit.close()

    def _make_visit(self) -> LocalRayVisit:
        settings = self._settings
        secret = settings.signing_secret
        signing = SigningKeys.from_text(secret) if secret else None
        return LocalRayVisit(
            StateFolder(state_root(), environment_name(signing), signing=signing),
            size=Size(
                num_cpus=settings.num_cpus,
                num_gpus=settings.num_gpus,
                object_store_memory_mb=settings.object_store_memory_mb,
            ),
            idle_s=settings.local_idle_s,
            launcher=self._make_launcher(signing_secret=secret or "", code=self._code),
        )
