"""A map whose manager is killed again and again: no item is committed twice, and none is lost."""

from __future__ import annotations

from collections import Counter
from random import Random

import effects
import pytest
from effects import calls
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

ITEMS = 3_000
CRASHES = 10

pytestmark = pytest.mark.usefixtures("fresh")


@workflow.task
def number(item: int) -> int:
    effects.note(item)
    if item % 100 == 7:
        raise ValueError(f"{item} fails")
    return item


def commits(store: MemoryStore) -> Counter[str]:
    """How often each task of the map was committed, in all runs."""
    counts: Counter[str] = Counter()

    def take(_: Checkpoints, record: TaskRecord) -> None:
        counts[record.task_id] += not record.is_failure

    WorkflowStore(store).read_checkpoints("w", taken=take)
    return counts


@pytest.mark.invariant(1)
@pytest.mark.parametrize("seed", [1, 2])
def test_each_item_is_committed_once_however_often_the_manager_is_killed(seed: int):
    store, random = MemoryStore(), Random(seed)
    node = number.map(range(ITEMS), max_failed="2%")
    for _ in range(CRASHES):
        with testing.in_process(store) as workflows:
            until = len(calls) + random.randint(1, ITEMS // CRASHES)
            workflows.run_async(node, workflow_id="w")
            wait_until(lambda until=until: len(calls) >= until)
            workflows.crash()
    with testing.in_process(store) as workflows:
        result = workflows.run(node, workflow_id="w")
        good = [item for item in range(ITEMS) if item % 100 != 7]
        assert list(result) == good
        assert list(result.failed) == [item for item in range(ITEMS) if item % 100 == 7]
        assert workflows.get_status("w") == "SUCCESSFUL"
    counts = commits(store)
    assert {counts[f"number[{item}]"] for item in good} == {1}
    assert {counts[f"number[{item}]"] for item in range(7, ITEMS, 100)} == {0}
    assert counts["number.map"] == 1
