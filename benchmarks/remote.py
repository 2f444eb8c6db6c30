"""A Ray cluster with its dashboard: workflows that tries submit to it, and a Ray job for each workflow instead."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.memory import MARK_VARIABLE, megabytes

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.clusters.engine import RayEngine

_ROOT = Path(__file__).parent.parent
_PATIENCE_S = 300.0
_LOOK_S = 2.0
# Two looks that differ by less than this are of processes that have settled.
_SETTLED_SHARE = 0.005


class RemoteCluster:
    """What a connection of Airflow reaches.

    :param storage: a folder.
    :param mark: of the cluster's processes.
    """

    def __init__(self, storage: str, mark: str) -> None:
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        self.storage = storage
        self._mark = mark
        self._hook = RayWorkflowHook()

    def submit(self, workflow_id: str, function: Callable[..., Any], **arguments: Any) -> RayEngine:
        """Submit a workflow as a try does; :meth:`wait_for_begin` waits for the manager to take it."""
        from airflow_provider_rayworkflow.clusters.hosts import engine_for
        from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
        from airflow_provider_rayworkflow.tries.run_spec import RunSpec
        from airflow_provider_rayworkflow.workflow.model.records import StartOptions

        definition = WorkflowDefinition.load(function, arguments, is_remote=True)
        spec = RunSpec(workflow_id=workflow_id, definition=definition)
        engine = engine_for(
            self._hook, spec, token=uuid.uuid4().hex, unreachable_timeout_s=_PATIENCE_S
        )
        engine.submit(StartOptions(on_existing="resume"))
        return engine

    def wait_for_begin(self, engine: RayEngine) -> None:
        wait_until(lambda: engine.has_begun())

    def submit_job(self, program: str, *arguments: str) -> None:
        """Submit a Ray job whose driver is a Python program, as this package once did for each workflow."""
        from airflow_provider_rayworkflow.connection.jobs_api import RayJobs

        cluster = self._hook.settings.cluster
        if cluster is None:
            raise RuntimeError("the connection has no host")
        RayJobs(cluster).submit(
            submission_id=uuid.uuid4().hex,
            entrypoint=shlex.join([sys.executable, "-c", program, *arguments]),
            runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
            metadata={},
        )

    def is_running(self, workflow_id: str) -> bool:
        from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

        found = self._hook.find(workflow_id)
        return found is not None and found.status is WorkflowStatus.RUNNING

    def settled_megabytes(self) -> float:
        """The memory (PSS) of the cluster's processes, once two looks in a row say nearly the same."""
        before, now = 0.0, megabytes(self._mark)
        deadline = time.monotonic() + _PATIENCE_S
        while abs(now - before) > _SETTLED_SHARE * now:
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster's memory does not settle")
            time.sleep(_LOOK_S)
            before, now = now, megabytes(self._mark)
        return now


@contextmanager
def remote_cluster() -> Iterator[RemoteCluster]:
    """One of its own, with a storage of its own. For one at a time: the connection is the process's."""
    sys.path += [str(_ROOT / "tests" / "airflow" / "remote"), str(_ROOT / "tests")]
    from cluster import Cluster

    mark = uuid.uuid4().hex
    os.environ[MARK_VARIABLE] = mark  # the cluster's processes inherit it
    cluster = Cluster(token=uuid.uuid4().hex * 2)
    with tempfile.TemporaryDirectory() as folder:
        storage = f"{folder}/storage"
        connection = {
            "conn_type": "ray_workflow",
            "host": cluster.address,
            "password": cluster.token,
            "extra": {"storage": storage},
        }
        os.environ["AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT"] = json.dumps(connection)
        os.environ["AIRFLOW_HOME"] = f"{folder}/airflow"
        try:
            cluster.start()
            yield RemoteCluster(storage, mark)
        finally:
            cluster.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask every few milliseconds.

    :raises TimeoutError: after five minutes.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {_PATIENCE_S:g} s")
        time.sleep(0.005)
