"""The process of a keeper: ``python -m airflow_provider_rayworkflow.workflow.local_ray {…}``.

The first process ends at once; its child, which no process waits for, is the keeper.
"""

from __future__ import annotations

import json
import os
import sys

from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.keeper import run_keeper


def main() -> None:
    options = json.loads(sys.argv[1])
    os.set_inheritable(options["lock"], False)  # it is not for Ray's processes
    if os.fork():
        os._exit(0)
    folder, size = StateFolder(*options.pop("folder")), Size(**options.pop("size"))
    sys.exit(run_keeper(folder, size, **options))


if __name__ == "__main__":
    main()
