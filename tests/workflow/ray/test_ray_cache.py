"""``cache=`` on Ray: what another workflow has computed is taken, small or large, and computed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ray
from witness import Gate, Ledger, wait_until

from airflow_provider_rayworkflow import workflow


@workflow.task(cache=workflow.Cache())
def rows(ledger: Ledger, count: int) -> bytes:
    ledger.write("rows")
    return b"r" * count


@workflow.task(cache=workflow.Cache())
def size(ledger: Ledger, data: bytes) -> int:
    ledger.write("size")
    return len(data)


@workflow.task(cache=workflow.Cache(key=lambda ledger, gate: "slow"))
def slow(ledger: Ledger, gate: Gate) -> int:
    ledger.write("slow")
    gate.wait()
    return 1


def test_small_and_large_results_are_taken_from_a_workflow_that_is_deleted(
    manager: None, tmp_path: Path
):
    ledger = Ledger(tmp_path / "ledger")
    for name, count in (("first", 2_000_000), ("other", 10), ("second", 2_000_000)):
        graph = size(ledger, rows(ledger, count))
        assert workflow.run(graph, workflow_id=f"cache {name}") == count
        if name != "second":
            workflow.delete(f"cache {name}")
    assert Counter(ledger.lines()) == {"rows": 2, "size": 2}
    assert len(workflow.get_output("cache second", task_id="rows")) == 2_000_000
    source = workflow.get_metadata("cache second", "rows")["from_cache"]
    assert source["workflow_id"] == "cache first"


def test_workflows_at_the_same_time_compute_once(manager: None, tmp_path: Path):
    ledger, gate = Ledger(tmp_path / "ledger"), Gate(tmp_path / "gate")
    names = [f"at once {number}" for number in range(10)]
    refs = [workflow.run_async(slow(ledger, gate), workflow_id=name) for name in names]
    wait_until(lambda: all(workflow.get_status(name) == workflow.RUNNING for name in names))
    ledger.wait_for("slow")
    gate.open()
    assert ray.get(refs) == [1] * 10
    assert ledger.lines() == ["slow"]
