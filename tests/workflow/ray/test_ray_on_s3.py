"""The whole runtime with its storage on an S3 server: a real Ray, keys in the URI, requests counted."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import ray
from proxy import Proxy
from servers import S3_SECRET, s3_address

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import find_manager
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def root() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
def store(s3_port: int, root: str) -> WorkflowStore:
    """The same storage, past the proxy."""
    return WorkflowStore(open_store(s3_address(s3_port, path=root)))


@pytest.fixture(scope="module")
def requests(s3_proxy: Proxy, root: str) -> Iterator[Counter[str]]:
    """A Ray cluster whose workflows are on S3; gives the requests that it makes."""
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(
            "local",
            num_cpus=3,
            object_store_memory=200 * 1024 * 1024,
            include_dashboard=False,
            log_to_driver=False,
        )
    end_manager()
    workflow.init(storage=s3_address(s3_proxy.port, path=root))
    yield s3_proxy.counts
    end_manager()
    if is_ours:
        ray.shutdown()


def end_manager() -> None:
    while (handle := find_manager()) is not None:
        ray.kill(handle)
        time.sleep(0.05)


@ray.remote
def add(left: int, right: int) -> int:
    return left + right


@ray.remote
def large(size: int) -> bytes:
    return bytes(size)


@ray.remote
def size_of(data: bytes) -> int:
    return len(data)


@ray.remote
def unless(broken: str, value: int) -> int:
    if Path(broken).exists():
        raise RuntimeError("it is broken")
    return value


def test_a_workflow_fails_and_is_resumed_with_what_it_had(
    requests: Counter[str], store: WorkflowStore, tmp_path: Path
):
    broken = tmp_path / "broken"
    broken.touch()
    first = size_of.bind(large.bind(100_000))
    with pytest.raises(workflow.WorkflowExecutionError, match="it is broken"):
        workflow.run(unless.options(max_retries=0).bind(str(broken), first), workflow_id="Fails/é")
    assert workflow.get_status("Fails/é") == "FAILED"
    assert ("Fails/é", "FAILED") in workflow.list_all()
    broken.unlink()
    assert workflow.resume("Fails/é") == 100_000
    record = store.read_status("Fails/é")
    assert record is not None
    assert (record.status, record.tasks_reused, record.epoch) == ("SUCCESSFUL", 2, 2)


def test_a_running_workflow_is_cancelled_and_deleted(requests: Counter[str], store: WorkflowStore):
    workflow.run_async(workflow.sleep(1000), workflow_id="waits")
    assert workflow.get_status("waits") == "RUNNING"
    workflow.cancel("waits")
    assert workflow.get_status("waits") == "CANCELED"
    workflow.delete("waits")
    assert [entry.key for entry in store.bytes.list("v1") if "waits" in entry.key] == []


def test_an_event_is_waited_for(requests: Counter[str], tmp_path: Path):
    class Told(workflow.EventListener):  # here, so that it is pickled as a whole
        async def poll_for_event(self, path: str) -> str:
            while not Path(path).exists():
                await asyncio.sleep(0.05)
            return "it came"

    told = tmp_path / "told"
    output = workflow.run_async(workflow.wait_for_event(Told, str(told)), workflow_id="told")
    told.touch()
    assert ray.get(output, timeout=60) == "it came"


def test_requests_are_few(requests: Counter[str], store: WorkflowStore):
    """Allowed beside: a manager writes its lease every 5 s and lists stop requests every 2 s."""
    workflow.run(add.bind(1, 2), workflow_id="warm")
    requests.clear()
    assert workflow.run(add.bind(1, 2), workflow_id="one") == 3
    total = Counter(requests)
    # PUT: the claim, RUNNING, the journal, SUCCESSFUL. DELETE: the RUNNING that it replaces.
    assert total["PUT"] <= 4 + 3, total
    assert total["DELETE MANY"] + total["DELETE"] == 1, total
    assert total["GET"] <= 3, total
    assert total["LIST"] <= 1 + 3, total


def test_a_fan_out_shares_its_writes(requests: Counter[str]):
    @ray.remote
    def total(*values: int) -> int:
        return sum(values)

    requests.clear()
    assert workflow.run(total.bind(*[add.bind(n, 0) for n in range(60)]), workflow_id="fan") == 1770
    assert requests["PUT"] < 60


def test_a_listing_reads_no_workflow(requests: Counter[str]):
    workflow.list_all()
    requests.clear()
    found = workflow.list_all()
    assert len(found) >= 4
    assert requests["GET"] <= 4  # a change log, a lease, the index's root and a node of it
    assert requests["LIST"] <= 5  # those, and a manager's looks for submissions and requests


def test_the_secret_is_nowhere(
    requests: Counter[str], store: WorkflowStore, s3_proxy: Proxy, root: str
):
    with pytest.raises(ValueError, match="sharing=") as raised:
        workflow.init(storage=s3_address(s3_proxy.port, path=root), sharing=False)
    secrets = [S3_SECRET, quote(S3_SECRET, safe=""), quote(S3_SECRET)]
    places = {"an error": str(raised.value), "the actors": str(actors())}
    for entry in store.bytes.list("v1"):
        places[entry.key] = store.bytes.get(entry.key).decode(errors="replace")
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs")
    for file in logs.rglob("*"):
        if file.is_file():
            places[str(file)] = file.read_text(errors="replace")
    assert len(places) > 10
    assert [place for place, text in places.items() if any(s in text for s in secrets)] == []


def actors() -> object:
    from ray._private.state import actors

    return actors()
