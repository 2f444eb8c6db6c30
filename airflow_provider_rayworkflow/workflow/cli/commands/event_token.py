"""``rayworkflow event-token``: the token that senders of HTTP events need."""

from __future__ import annotations

import os
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.model.event_posts import read_settings
from airflow_provider_rayworkflow.workflow.storage import open_store, resolve_storage
from airflow_provider_rayworkflow.workflow.storage.events import EventStore


def add_to(commands: Commands) -> None:
    commands.add("event-token", _event_token, "Print the token that senders of HTTP events need.")


def _event_token(options: Any) -> Answer:
    token = read_settings(os.environ).token
    if token is None:
        store = open_store(resolve_storage(options.storage))  # it is made for the token
        token = EventStore(store).token()
    return Answer(value={"token": token}, text=token)
