"""What a Ray job runs to start its cluster's manager for a storage.

``python -m airflow_provider_rayworkflow.workflow.runtime.service.manager_job --storage …``. It ends when
the manager is up, which outlives it and finds submissions by itself.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import ray

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.service import connect, versions

_WAIT_FOR_OTHER_VERSION_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the manager, in place of one of another version; 1 if that can't be done."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else __name__}")
    parser.add_argument("--storage", required=True, help="path or URI, without secrets")
    options = parser.parse_args(arguments)
    log_to_stderr()
    try:
        store = store_at(options.storage)
        ray.init(logging_level=logging.WARNING)
        versions.replace_other_version(store, wait_s=_WAIT_FOR_OTHER_VERSION_S)
        connect.manager(storage=options.storage)
    except (WorkflowError, ValueError) as exc:
        # The last lines are all that the other side gets to see.
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
