"""Processes that use a local Ray: ``local_ray_visitors.py NUMBER ROOT NAME STORAGE IDLE_S TIMEOUT_S``.

With ``VISITOR_USER``, they are another user's. Each prints one line of JSON: the keeper's id and process, or the error. Then it stays until standard
input ends.
"""

import json
import logging
import os
import sys

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.visit import LocalRayVisit


def main() -> None:
    number, root, name, storage, idle_s, timeout_s = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    if user := os.environ.get("VISITOR_USER"):
        os.setuid(int(user))
    is_child = any(not os.fork() for _ in range(int(number) - 1))  # a child forks no further
    folder = StateFolder(root, name)
    launcher = Launcher(cluster="stand_in_ray:StandIn")
    visit = LocalRayVisit(
        folder,
        size=Size(),
        idle_s=float(idle_s),
        launcher=launcher,
        timeout_s=float(timeout_s),
    )
    try:
        state = visit.ensure(storage)
        said = {"keeper": state.keeper_id, "pid": state.process.pid}
    except WorkflowError as exc:
        said = {"error": f"{type(exc).__name__}: {exc}"}
    os.write(1, f"{json.dumps(said)}\n".encode())
    while os.read(0, 1):
        pass
    visit.close()
    if is_child:
        os._exit(0)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


main()
