"""Listing workflows, and asking for the status of one."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator

from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.bytes import Entry
from airflow_provider_rayworkflow.workflow.storage.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.workflows import HonestStatuses, list_workflows
from benchmarks import peers
from benchmarks.rows import Row, by_count, by_time, interleaved


class CountingStore(LocalStore):
    """Counts listings and reads."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.calls: Counter[str] = Counter()

    def list(self, folder: str) -> Iterator[Entry]:
        self.calls["list"] += 1
        return super().list(folder)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.calls["get"] += 1
        return super().get(key, start, length)


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 100) if quick else (5, 10_000)
    with tempfile.TemporaryDirectory() as root:
        counting = CountingStore(root)
        store = WorkflowStore(counting)
        for number in range(size):
            store.write_status(_record(f"w{number}"))

        def list_all() -> None:
            counting.calls.clear()
            list_workflows(store, HonestStatuses(store, now=time.time()))

        seconds = interleaved({"list": list_all}, rounds=rounds)["list"]
        listed = sum(counting.calls.values())
        counting.calls.clear()
        HonestStatuses(store, now=time.time()).read("w1")
        rows = [
            by_count(
                f"list_all over {size:,} workflows",
                "one listing",
                ours=listed,
                allowed=1,
                unit="calls",
            ),
            by_count(
                "get_status of one that has ended",
                "a listing and a read",
                ours=sum(counting.calls.values()),
                allowed=2,
                unit="calls",
            ),
        ]
    if quick:
        return rows
    old = peers.run("ray_workflow", 3, 100)["list"] * size
    name = "ray.workflow 2.47.1 (by its time for some 100)"
    work = f"list_all over {size:,} workflows"
    return [*rows, by_time(work, name, ours=seconds, theirs=old, goal="≥ 20")]


def _record(workflow_id: str) -> StatusRecord:
    return StatusRecord(
        workflow_id=workflow_id,
        status=WorkflowStatus.SUCCESSFUL,
        epoch=1,
        number=1,
        manager_id="m",
        created_at=1.0,
    )
