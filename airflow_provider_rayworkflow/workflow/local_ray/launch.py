"""Starts a keeper, as a process that does not end with its caller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.leftovers import MARK_VARIABLE, mark
from airflow_provider_rayworkflow.workflow.model.code_variables import base_variables

#: What the keeper starts, as ``"module:class"``: see :class:`.cluster.LocalCluster`.
RAY = "airflow_provider_rayworkflow.workflow.runtime.service.local_cluster:RayOfMachine"

#: How long the keeper's process may take until it has left its caller. Then it runs.
_DETACH_TIMEOUT_S = 60.0

# Of one task instance, of Airflow's line to its supervisor, or of another Ray: not for a process
# that serves all.
_OF_CALLER = ("AIRFLOW_CTX_", "__AIRFLOW_", "_AIRFLOW_")
_OF_RAY = frozenset(
    {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_ID", "RAY_RAYLET_PID", "TRACEPARENT"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launcher:
    """How keepers are started.

    :ivar cluster: the import path of the cluster's class.
    :ivar signing_secret: for the documents of workflows, ``""`` for that of the environment.
    :ivar code: of the workflow for which it is started (:func:`.code_of`): its tasks wait for no worker of
        their own.
    """

    cluster: str = RAY
    signing_secret: str = field(default="", repr=False)
    code: Mapping[str, str] = field(default_factory=dict)

    def launch(self, folder: StateFolder, size: Size, *, idle_s: float) -> None:
        """Start a keeper, unless one lives already. Only behind the door.

        When this returns, the keeper has its lock, and does not depend on this process any more.

        :param idle_s: how long it stays when nothing is left to do, if no process says otherwise.
        :raises LocalRayError: when it can't be started.
        """
        lock = folder.take_keeper_lock()
        if lock is None:
            return
        try:
            folder.clear()  # what an earlier keeper said is not of this one
            self._launch(folder, size, uuid.uuid4().hex, idle_s=idle_s, lock=lock)
        finally:
            os.close(lock)  # the keeper has it open, too

    def _launch(
        self, folder: StateFolder, size: Size, keeper_id: str, *, idle_s: float, lock: int
    ) -> None:
        options = {
            "folder": [folder.root, folder.name],
            "size": asdict(size),
            "keeper_id": keeper_id,
            "lock": lock,
            "idle_s": idle_s,
            "cluster": self.cluster,
        }
        command = [sys.executable, "-P", "-m", f"{__package__}", json.dumps(options)]
        output = folder.open_log()
        try:
            # It ends at once, and its child is the keeper: not ours, and so not ended with us.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=self._variables(folder, keeper_id),
                pass_fds=[lock],
                start_new_session=True,
            )
        except OSError as exc:
            raise LocalRayError(f"The local Ray can't be started: {exc}.") from exc
        finally:
            os.close(output)
        try:
            code = process.wait(_DETACH_TIMEOUT_S)
        except BaseException as exc:
            process.kill()
            process.wait()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
            code = -1
        if code != 0:
            raise LocalRayError(
                f"The local Ray can't be started: its process ended with {code}. "
                f"See {folder.log_path!r}."
            )

    def _variables(self, folder: StateFolder, keeper_id: str) -> dict[str, str]:
        """The environment of the keeper and of all that Ray starts."""
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OF_CALLER) and name not in _OF_RAY
        }
        variables |= base_variables(self.code)
        # What the caller has added to its path is of its DAG file. Ours must be found all the same,
        # where it is no part of the environment: a checkout.
        paths = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
        own = Path(airflow_provider_rayworkflow.__file__).resolve().parent.parent
        if str(own) not in paths and not own.is_relative_to(os.path.realpath(sys.prefix)):
            variables["PYTHONPATH"] = os.pathsep.join([*paths, str(own)])
        if self.signing_secret:
            variables[SIGNING_KEY_VARIABLE] = self.signing_secret
        variables["RAY_AUTH_TOKEN_PATH"] = folder.token_path
        variables[MARK_VARIABLE] = mark(folder, keeper_id)
        return variables
