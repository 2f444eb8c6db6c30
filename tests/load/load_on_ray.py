"""The long form of :mod:`test_load`, on Ray: ``make load``. Prints the figures that it measures."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@ray.remote
def number(value):
    return value


@ray.remote
def total(*values):
    return sum(values)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("storage")
    ray.init(
        "local",
        num_cpus=4,
        object_store_memory=300 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
    )
    workflow.init(storage=str(root), max_running_workflows=50, max_pending_workflows=1_000)
    yield root
    ray.shutdown()


@pytest.fixture
def manager(root: Path) -> psutil.Process:
    [lease] = WorkflowStore(open_store(str(root))).leases.list_all()
    return psutil.Process(lease.process.pid)


def megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def tell(line: str) -> None:
    print(f"\n    {line}", flush=True)


def test_one_workflow_of_fifty_thousand_tasks(root: Path, manager: psutil.Process):
    before, begun = megabytes(manager), time.monotonic()
    dag = total.bind(*[number.bind(index) for index in range(50_000)])
    assert workflow.run(dag, workflow_id="wide") == 1_249_975_000
    tell(
        f"50,001 tasks in {time.monotonic() - begun:.0f} s; the manager had {before:.0f} MB "
        f"before and {megabytes(manager):.0f} MB after"
    )
    assert workflow.get_status("wide") == "SUCCESSFUL"


def test_a_thousand_wait_while_fifty_run(root: Path, tmp_path: Path):
    opened = tmp_path / "open"

    @ray.remote(num_cpus=0)
    def wait_at_the_gate(first: str) -> str:
        while not opened.exists():
            time.sleep(0.1)
        return first

    begun = time.monotonic()
    outputs = []
    for index in range(1_050):
        outputs.append(
            workflow.run_async(wait_at_the_gate.bind("through"), workflow_id=f"gated{index}")
        )
    with pytest.raises(queue.Full):
        workflow.run_async(wait_at_the_gate.bind("through"), workflow_id="one more")
    gated = Counter(status for name, status in workflow.list_all() if name.startswith("gated"))
    assert gated == {"RUNNING": 50, "PENDING": 1_000}
    opened.touch()
    assert Counter(ray.get(outputs)) == {"through": 1_050}
    tell(f"1,050 workflows in {time.monotonic() - begun:.0f} s, 50 at once")


def test_ten_thousand_workflows_end_and_the_managers_memory_stays(
    root: Path, manager: psutil.Process
):
    sizes, begun = {}, time.monotonic()
    for index in range(10_000):
        if index in (1_000, 5_500):
            sizes[index] = megabytes(manager)
        if index % 50 == 0:
            outputs = [
                workflow.run_async(total.bind(number.bind(1)), workflow_id=f"many{index + n}")
                for n in range(50)
            ]
            assert sum(ray.get(outputs)) == 50
    sizes[10_000] = megabytes(manager)
    tell(f"10,000 workflows in {time.monotonic() - begun:.0f} s; the manager's MB: {sizes}")
    begun = time.monotonic()
    found = [status for name, status in workflow.list_all() if name.startswith("many")]
    assert Counter(found) == {"SUCCESSFUL": 10_000}
    tell(f"listed in {time.monotonic() - begun:.1f} s")
    # 4,500 workflows that were all kept would be a hundred megabytes and more.
    assert sizes[10_000] < sizes[5_500] + 30
