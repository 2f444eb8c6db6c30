"""Workflows in this process whose manager waits for less long than others do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.execution.metrics import Metrics
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage import ByteStore
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S


@contextmanager
def in_process(
    store: ByteStore,
    *,
    renewal_s: float = LEASE_TTL_S / 3,
    metrics: Metrics | None = None,
    **intervals: float,
) -> Iterator[ModuleType]:
    """As :func:`testing.in_process`, with :class:`Intervals`, or figures, of one's own."""
    make_manager = partial(Manager, metrics=metrics, intervals=Intervals(**intervals))
    manager = InProcessManager(store, renewal_s=renewal_s, make_manager=make_manager)
    with manager.running():
        yield workflow
