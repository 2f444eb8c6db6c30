"""Listing workflows, and asking for the status of one."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from benchmarks import peers
from benchmarks.cluster import cluster, manager
from benchmarks.rows import Row, by_count, by_rate, by_time, medians, seconds_of

_LIST = "list_all over {:,} workflows"
_OLD = "ray.workflow 2.47.1"
_QUESTIONS = 200


class CountingStore(LocalStore):
    """Counts listings and reads."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._calls: Counter[str] = Counter()

    def take(self) -> int:
        """How many there were since the last time."""
        number = self._calls.total()
        self._calls.clear()
        return number

    def list(self, folder: str) -> Iterator[Entry]:
        self._calls["list"] += 1
        return super().list(folder)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._calls["get"] += 1
        return super().get(key, start, length)


def measure(quick: bool) -> list[Row]:
    size = 100 if quick else 10_000
    with tempfile.TemporaryDirectory() as root:
        _write_finished(root, size)
        return _requests(root, size) + ([] if quick else _times(root, size))


def _write_finished(root: str, number: int) -> None:
    store = WorkflowStore(LocalStore(root))
    names = [f"w{workflow_number}" for workflow_number in range(number)]
    with store.notes.changing(names):
        for name in names:
            store.write_status(
                StatusRecord(
                    workflow_id=name,
                    status=WorkflowStatus.SUCCESSFUL,
                    epoch=1,
                    number=1,
                    manager_id="m",
                    created_at=1.0,
                )
            )
    rebuild(store, now=time.time())
    LeftLogs(store).take_over(time.time())


def _requests(root: str, size: int) -> list[Row]:
    counting = CountingStore(root)
    known = Registry(
        WorkflowStore(counting), manager_id="another", clock=time.time, tenure=Tenure()
    )
    everything = [status for status in WorkflowStatus if status is not WorkflowStatus.NONE]
    assert len(known.list_with_status(everything)) == size
    listed = counting.take()
    known.read_status("w1")
    return [
        by_count(
            _LIST.format(size),
            "five, and a read for each 100",
            ours=listed,
            allowed=5 + size // 100,
            unit="requests",
        ),
        by_count(
            "get_status of one that has ended",
            "one read",
            ours=counting.take(),
            allowed=1,
            unit="requests",
        ),
    ]


def _times(root: str, size: int) -> list[Row]:
    """Both as users call them, each library in its own storage with so many that have ended."""
    with cluster(), manager(root), peers.running("ray_workflow") as old:
        old("copy_finished", size)
        listing = medians(
            {
                "ours": partial(seconds_of, partial(_list_all, size)),
                "theirs": partial(old, "list_all"),
            },
            rounds=5,
        )
        asking = medians(
            {"ours": partial(seconds_of, _ask), "theirs": partial(old, "get_status", _QUESTIONS)},
            rounds=5,
        )
    return [
        by_time(_LIST.format(size), _OLD, **listing, goal="≥ 20"),
        by_rate(
            "get_status of one that has ended",
            _OLD,
            **{party: _QUESTIONS / seconds for party, seconds in asking.items()},
            goal="≥ 20",
            unit="calls/s",
        ),
    ]


def _list_all(size: int) -> None:
    if len(workflow.list_all()) != size:
        raise RuntimeError(f"it should have listed {size}")


def _ask() -> None:
    for _ in range(_QUESTIONS):
        workflow.get_status("w1")
