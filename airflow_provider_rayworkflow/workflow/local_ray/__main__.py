"""The process of a keeper: ``python -m airflow_provider_rayworkflow.workflow.local_ray …``.

The first process ends at once; its child, which no process waits for, is the keeper.
"""

from __future__ import annotations

import argparse
import os
import sys

from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.keeper import run_keeper


def main() -> None:
    options = _options()
    os.set_inheritable(options.lock, False)  # it is not for Ray's processes
    if os.fork():
        os._exit(0)
    folder = StateFolder(options.root, options.name)
    size = Size(
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        object_store_memory_mb=options.object_store_memory_mb,
    )
    sys.exit(
        run_keeper(
            folder,
            size,
            keeper_id=options.keeper_id,
            lock=options.lock,
            idle_s=options.idle_s,
            cluster=options.cluster,
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--root", "--name", "--keeper-id", "--cluster"):
        parser.add_argument(name, required=True)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--idle-s", type=float, required=True)
    for name in ("--num-cpus", "--num-gpus", "--object-store-memory-mb"):
        parser.add_argument(name, type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
