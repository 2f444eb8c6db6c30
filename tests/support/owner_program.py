"""A program with a manager of its own: runs or resumes a workflow and prints what became of it.

``owner_program.py STORAGE run|resume``: its one task leaves a line in ``STORAGE.starts`` and waits
until ``STORAGE.gate`` exists.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray

from airflow_provider_rayworkflow.workflow import testing


@ray.remote
def wait(storage):
    with open(f"{storage}.starts", "a") as file:
        file.write("started\n")
    while not Path(f"{storage}.gate").exists():
        time.sleep(0.05)
    return 7


def main(storage: str, what: str) -> None:
    with testing.in_process(storage) as workflows:
        print("ready", time.time(), flush=True)
        try:
            if what == "run":
                output = workflows.run(wait.bind(storage), workflow_id="w")
            else:
                output = workflows.resume("w")
            print("output", output, flush=True)
        except Exception as exc:
            print("error", type(exc).__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
