"""Our log lines in the processes of a cluster, whose output Ray carries to the drivers."""

from __future__ import annotations

import functools
import logging
import sys

_PACKAGE = "airflow_provider_rayworkflow.workflow"


@functools.cache
def log_to_stderr() -> None:
    """Write the log of the runtime to this process's standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s\t%(levelname)s -- %(message)s"))
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
