"""Workflows in this process whose manager waits for less long than others do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage import ByteStore
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S


@contextmanager
def in_process(
    store: ByteStore, *, renewal_s: float = LEASE_TTL_S / 3, **intervals: float
) -> Iterator[ModuleType]:
    """As :func:`testing.in_process`, with :class:`Intervals` of one's own."""
    manager = InProcessManager(store, renewal_s=renewal_s, intervals=Intervals(**intervals))
    with manager.running():
        yield workflow
