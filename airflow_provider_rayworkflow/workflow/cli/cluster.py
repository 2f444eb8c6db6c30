"""What commands need that act through the manager of a Ray cluster."""

from __future__ import annotations

import argparse
import os
from typing import Any

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli.stored import check_is_there
from airflow_provider_rayworkflow.workflow.cli.usage import Answer
from airflow_provider_rayworkflow.workflow.storage import STORAGE_VARIABLE


def add_address(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which cluster it acts on."""
    parser.add_argument(
        "--address", help="of the Ray cluster; by default $RAY_ADDRESS or this machine's"
    )


def join(options: Any) -> None:
    """Join the cluster, and start its manager or check that it has this storage."""
    check_is_there(options.storage)
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    connect.join(options.address)
    # With a storage that the cluster's manager does not have, this raises.
    api.init(storage=options.storage or os.environ.get(STORAGE_VARIABLE))


def status_now(workflow_id: str) -> Answer:
    """The status of a workflow, as the manager has it."""
    status = api.get_status(workflow_id)
    value = {"workflow_id": workflow_id, "status": status}
    return Answer(value=value, text=f"{workflow_id} is {status}")
