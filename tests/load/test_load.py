"""Many workflows and many tasks, in this process: nothing is forgotten, and memory comes back.

``make load`` does the same on Ray, with larger numbers.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import time
from collections import Counter
from pathlib import Path

import pytest
import ray
from noting_store import NotingStore
from sample_records import status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = pytest.mark.timeout(300)


@ray.remote
def number(value, *others):
    return value


@ray.remote
def wait_for(file):
    while not Path(file).exists():
        time.sleep(0.05)
    return "through"


@ray.remote
def total(*values):
    return sum(values)


def test_ten_thousand_workflows_are_listed_without_reading_one():
    store = NotingStore()
    writer = WorkflowStore(store)
    with writer.notes.changing([quote_id(f"Workflow {index}") for index in range(10_000)]):
        for index in range(10_000):
            status = WorkflowStatus.SUCCESSFUL if index % 10 else WorkflowStatus.RUNNING
            name, manager_id = f"Workflow {index}", f"manager{index % 3}"
            writer.write_status(status_record(status, name, number=1, manager_id=manager_id))
    reader = WorkflowStore(store)
    found = StatusReader(reader).list_workflows()
    assert Counter(status for _, status, _ in found) == {"SUCCESSFUL": 9_000, "RESUMABLE": 1_000}
    assert {workflow_id for workflow_id, _, _ in found} == {f"Workflow {n}" for n in range(10_000)}
    assert store.count("get") == 3  # the leases of three managers, none of which is alive


def test_a_thousand_wait_while_fifty_run_and_one_more_is_refused(tmp_path: Path):
    gate = tmp_path / "gate"
    with testing.in_process() as workflows:
        workflows.init(max_running_workflows=50, max_pending_workflows=1_000)
        outputs = [
            workflows.run_async(wait_for.bind(str(gate)), workflow_id=f"w{index}")
            for index in range(1_050)
        ]
        with pytest.raises(queue.Full):
            workflows.run_async(wait_for.bind(str(gate)), workflow_id="one more")
        statuses = Counter(status for _, status in workflows.list_all())
        assert statuses == {"RUNNING": 50, "PENDING": 1_000}
        gate.touch()
        assert Counter(ray.get(outputs)) == {"through": 1_050}
        assert {status for _, status in workflows.list_all()} == {"SUCCESSFUL"}


def test_a_workflow_of_five_thousand_tasks_ends_and_its_resume_runs_none_of_them():
    def dag():
        return total.bind(*[number.bind(index) for index in range(5_000)])

    store = MemoryStore()
    with testing.in_process(store) as workflows:
        assert workflows.run(dag(), workflow_id="wide") == 12_497_500
        record = WorkflowStore(store).read_status("wide")
        assert record is not None
        assert (record.tasks_total, record.tasks_done) == (5_001, 5_001)
        files = [entry.key for entry in store.list("v1/workflows/wide")]
    assert len(files) < 100  # not one for each task
    with testing.in_process(store) as workflows:
        assert workflows.resume("wide") == 12_497_500


def test_a_manager_keeps_nothing_of_workflows_that_have_ended():
    """Objects of this package and of asyncio, after 50 workflows and after 300.

    But for its change log, which has what changed in the last minute: test_own_changes.py.
    """
    kept = []
    with testing.in_process() as workflows:
        for index in range(300):
            workflows.run(total.bind(number.bind(1), number.bind(2)), workflow_id=f"w{index}")
            if index in (49, 299):
                kept.append(objects())
    grown = {kind: after - kept[0][kind] for kind, after in kept[1].items()}
    assert {kind: more for kind, more in grown.items() if more > 20} == {}


def objects() -> Counter[str]:
    """How many there are of each class; but for timers that asyncio forgets a hundred at a time."""
    gc.collect()
    things = [
        thing
        for thing in gc.get_objects()
        if not (isinstance(thing, asyncio.TimerHandle) and thing.cancelled())
    ]
    kinds = (type(thing) for thing in things)
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    found = Counter(name for name in names if name.startswith(("airflow_provider_ray", "asyncio")))
    return Counter({name: count for name, count in found.items() if not name.endswith(_NOTED)})


# What a manager's change log is made of.
_NOTED = ("own_changes._Noted", "change_logs.Change", "index_row.IndexRow")


def test_it_keeps_nothing_of_workflows_that_failed_or_were_canceled(tmp_path: Path):
    @ray.remote
    def broken():
        raise ValueError("on purpose")

    kept = []
    with testing.in_process() as workflows:
        for index in range(120):
            with pytest.raises(workflow.WorkflowExecutionError):
                workflows.run(broken.bind(), workflow_id=f"failed{index}")
            gate = tmp_path / str(index)
            workflows.run_async(wait_for.bind(str(gate)), workflow_id=f"canceled{index}")
            workflows.cancel(f"canceled{index}")
            gate.touch()
            if index in (19, 119):
                kept.append(objects())
    grown = {kind: after - kept[0][kind] for kind, after in kept[1].items()}
    assert {kind: more for kind, more in grown.items() if more > 10} == {}
