"""``rayworkflow reindex``: make the index of workflows anew."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild


def add_to(commands: Commands) -> None:
    commands.add(
        "reindex",
        _reindex,
        "Make the index of workflows, which lists read, anew from their statuses; needs no cluster.",
    )


def _reindex(options: Any) -> Answer:
    number = rebuild(open_stored(options), now=time.time())
    return Answer(value={"workflows": number}, text=f"The index has {number} workflows.")
