"""Our log lines in the processes of a cluster, whose output Ray carries to the drivers."""

from __future__ import annotations

import functools
import logging
import os
import sys

from airflow_provider_rayworkflow.workflow.runtime.private_ray import LOG_PREFIX_TASK_NAME

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


def label_output(label: str) -> None:
    """Have Ray put this in front of what the process prints from here on, where a driver shows it.

    It is how Ray's workers tell its log monitor the name of a task.
    """
    line = f"{LOG_PREFIX_TASK_NAME}{label}\n".encode()
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        stream.flush()
        os.write(descriptor, line)  # in a third of the time that the stream takes
