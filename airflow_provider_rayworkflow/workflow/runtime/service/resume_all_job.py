"""What a Ray job runs to resume all interrupted workflows of a storage on its cluster.

``python -m airflow_provider_rayworkflow.workflow.runtime.service.resume_all_job --storage …``. It ends when
the cluster's manager has them; the storage says how they go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.service import connect
from airflow_provider_rayworkflow.workflow.runtime.service.job import join_manager


def main(arguments: Sequence[str] | None = None) -> int:
    """Resume them; 1 if that can't be done at all."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    try:
        manager = join_manager(
            store_at(options.storage), options.storage, own_modules=options.own_modules
        )
        resumed = connect.call(
            manager.ask.remote("resume_all", include_failed=options.include_failed)
        )
    except (WorkflowError, ValueError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return 1
    for workflow_id, error in resumed:
        print(f"Workflow {workflow_id} {f'not resumed: {error}' if error else 'resumed'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else __name__}")
    parser.add_argument("--storage", required=True, help="path or URI, without secrets")
    parser.add_argument("--own-modules", type=int, default=0, help="as for the job of a workflow")
    parser.add_argument("--include-failed", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
