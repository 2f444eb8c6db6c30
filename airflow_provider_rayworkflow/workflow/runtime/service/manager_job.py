"""What a Ray job runs to start its cluster's manager for a storage.

``python -m airflow_provider_rayworkflow.workflow.runtime.service.manager_job --storage …``. It says when
the manager is up, which finds submissions by itself, and stays until the manager is gone. The manager
outlives it; but Ray ends each idle worker of a job that has ended, and a new one takes 2 s to start (Ray
2.60), where one that is still there takes a task in 15 ms.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import find_manager
from airflow_provider_rayworkflow.workflow.runtime.names import MANAGER_IS_UP
from airflow_provider_rayworkflow.workflow.runtime.service import connect, versions

_WAIT_FOR_OTHER_VERSION_S = 600.0
_LOOK_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the manager, in place of one of another version, and wait for its end; 1 if it can't start."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else __name__}")
    parser.add_argument("--storage", required=True, help="path or URI, without secrets")
    options = parser.parse_args(arguments)
    log_to_stderr()
    try:
        store = store_at(options.storage)
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
        versions.replace_other_version(store, wait_s=_WAIT_FOR_OTHER_VERSION_S)
        handle = connect.manager(storage=options.storage)
    except (WorkflowError, ValueError) as exc:
        # The last lines are all that the other side gets to see.
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return 1
    print(MANAGER_IS_UP, flush=True)
    wait_for_end(handle, lambda: find_manager(store.bytes.uri))
    return 0


def wait_for_end(
    handle: Any, find: Callable[[], Any], *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return when a manager is gone, or another one is in its place. One that Ray restarts is the same.

    :param find: the manager that is there now, None for none.
    """
    while (found := find()) is not None and found._actor_id == handle._actor_id:
        sleep(_LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
