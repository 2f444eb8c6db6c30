"""What a start asks of the storage, and that nothing is lost if others act between its questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import effects
import pytest
import ray
from effects import calls
from sample_records import claim_epoch, lease, status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotResumableError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.storage import Data, Entry, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.keys import (
    CHANGES,
    REQUESTS,
    cancel_key,
    status_folder,
)

Asked = tuple[str, str]


pytestmark = pytest.mark.usefixtures("fresh")


class Watched(MemoryStore):
    """Notes what is asked of it about workflows, and lets something happen before it answers.

    What a manager does by the clock is not noted, nor are its change log and the index: test_own_changes.py.

    :ivar before: what happens, once, before something is asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.before: dict[Asked, Callable[[], object]] = {}

    def list(self, folder: str):
        self._note("list", folder.split("/")[1] if folder != "v1/requests" else "leases")
        return super().list(folder)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._note("get", kind_of(key))
        return super().get(key, start, length)

    def put(self, key: str, data: Data) -> None:
        self._note("put", kind_of(key))
        super().put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        self._note("create", kind_of(key))
        return super().put_if_absent(key, data)

    def delete(self, keys) -> None:
        wanted = list(keys)
        self._note("delete", kind_of(wanted[0]))
        super().delete(wanted)

    def _note(self, call: str, kind: str) -> None:
        if happens := self.before.pop((call, kind), None):
            happens()
        if kind not in ("leases", "changes", "index", "watchers"):
            self.asked.append((call, kind))


def kind_of(key: str) -> str:
    _, folder, *_ = key.split("/")
    return key.rpartition(".")[2] if folder == "workflows" else folder


@pytest.fixture
def store() -> Watched:
    return Watched()


@ray.remote(**workflow.options(task_id="first"))
def first(value):
    effects.note("first")
    return value


@ray.remote(max_retries=0)
def last(*values):
    effects.note("last")
    effects.gate.wait()
    return len(values)


@contextmanager
def failing() -> Iterator[None]:
    """Around what runs a workflow: its last task fails, and won't again."""
    effects.broken.add("last")
    with pytest.raises(workflow.WorkflowExecutionError):
        yield
    effects.broken.clear()
    calls.clear()


def fail(workflows: testing.InProcessWorkflows, graph=None) -> None:
    with failing():
        workflows.run(graph or last.bind(first.bind(1)), workflow_id="w")


def finish(output: ray.ObjectRef) -> object:
    """Let the last task go on once a caller waits for the output: else it is read when it is there."""
    effects.gate.set()
    return ray.get(output)


def crash(store: MemoryStore) -> None:
    """Leave a workflow with a dead manager, when its first task is committed."""
    with testing.in_process(store) as workflows:
        workflows.run_async(last.bind(first.bind(1)), workflow_id="w")
        workflows.get_output("w", task_id="first")
        workflows.crash()
    effects.gate.set()
    effects.join_tasks()
    calls.clear()


# ---- how much is asked

LOOK = [("list", "status"), ("get", "status"), ("list", "workflows")]
# Before each write: is the claim there, and no later one? Where that is a request, a look is good
# for a second, so a short run asks for none.
OWNED = [("get", "epoch"), ("get", "epoch")]
CLAIM = [("get", "epoch"), ("create", "epoch"), *OWNED, ("put", "status")]
END = [*OWNED, ("put", "journal"), *OWNED, ("put", "status"), ("delete", "status")]


def test_a_resume_asks_for_each_thing_once(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.asked.clear()
        assert finish(workflows.resume_async("w")) == 1
        assert store.asked == [*LOOK, *CLAIM, ("get", "journal"), *END]
    assert calls == ["last"]


def test_a_run_that_goes_on_asks_for_no_more(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.asked.clear()
        assert finish(workflows.run_async(last.bind(first.bind(1)), workflow_id="w")) == 1
        assert store.asked == [*LOOK, *CLAIM, ("get", "journal"), *END]


def test_a_second_resume_reads_the_older_graph_besides(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        with failing():
            workflows.resume("w")
        store.asked.clear()
        assert finish(workflows.resume_async("w")) == 1
        assert store.asked == [*LOOK, ("get", "epoch"), *CLAIM, *2 * [("get", "journal")], *END]


def without_looks(asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [one for one in asked if one != ("get", "epoch")]


def test_with_a_thousand_tasks_it_is_a_read_for_each_segment_of_the_journal(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows, last.bind(*[first.bind(number) for number in range(999)]))
        segments = [entry for entry in store.list("v1/workflows/w") if "journal" in entry.key]
        assert 1 <= len(segments) < 10
        store.asked.clear()
        assert finish(workflows.resume_async("w")) == 999
        read = len(segments) * [("get", "journal")]
        # A run that lasts, as on a busy machine, looks at its claim now and then.
        assert without_looks(store.asked) == without_looks([*LOOK, *CLAIM, *read, *END])
    assert calls == ["last"]


def test_a_workflow_that_waits_for_a_slot_is_listed_when_it_has_one(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        workflows.init(max_running_workflows=1, max_pending_workflows=1)
        other = workflows.run_async(last.bind(), workflow_id="other")
        store.asked.clear()
        output = workflows.resume_async("w")
        assert store.asked == [*LOOK, *CLAIM]
        assert (finish(other), finish(output)) == (0, 1)
        assert store.asked.count(("list", "workflows")) == 2
    assert calls == ["last", "last"]


def test_an_admission_reads_requests_where_the_workflows_folder_tells_of_a_cancel(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.put(cancel_key("w", "a try"), b"")  # and died before it wrote the request
        store.asked.clear()
        assert finish(workflows.resume_async("w")) == 1
        assert store.asked == [*LOOK, ("list", "requests"), *CLAIM, ("get", "journal"), *END]


def test_a_workflow_of_another_manager_is_attached_to_by_its_status(store: Watched):
    others = WorkflowStore(store)
    claim_epoch(others, now=time.time())
    others.write_status(status_record(WorkflowStatus.RUNNING, created_at=time.time()))
    others.leases.write(lease(ttl_s=99))
    with testing.in_process(store) as workflows:
        store.asked.clear()
        workflows.resume_async("w")
        assert set(store.asked) == {("list", "status"), ("get", "status")}


def test_a_resume_takes_ten_requests_of_a_remote_storage(store: Watched):
    store.reads_at_once = 16
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.asked.clear()
        assert finish(workflows.resume_async("w")) == 1
        # A busy machine may take longer than a look is good for.
        assert len(store.asked) - len(OWNED) * (store.asked.count(("get", "epoch")) // 2) == 10


def test_a_status_is_a_listing_and_a_read(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.asked.clear()
        assert workflows.get_status("w") == "FAILED"
        assert store.asked == [("list", "status"), ("get", "status")]


class Counting(MemoryStore):
    """Counts calls, and the objects that are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = 0

    def list(self, folder: str) -> Iterator[Entry]:
        found = list(super().list(folder))
        if folder not in (REQUESTS, CHANGES) and not folder.startswith("v1/index"):
            # A manager looks there by the clock.
            self.cost += 1 + len(found)
        return iter(found)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if kind_of(key) not in (
            "changes",
            "index",
        ):  # a manager brings the index up to date by the clock
            self.cost += 1
        return super().get(key, start, length)


@pytest.mark.invariant(12)
def test_one_workflow_costs_the_same_however_many_are_stored():
    costs = []
    for others in (0, 200):
        effects.gate.clear()
        store = Counting()
        with testing.in_process(store) as workflows:
            for number in range(others):
                workflows.run(first.bind(number), workflow_id=f"other-{number}")
            while WorkflowStore(store).index.load() is None:
                time.sleep(0.01)  # a manager's first look at a storage makes the index
            store.cost = 0
            fail(workflows)
            effects.gate.set()
            assert workflows.resume("w") == 1
            assert workflows.get_status("w") == "SUCCESSFUL"
            assert workflows.get_output("w") == 1
            assert workflows.get_metadata("w")["status"] == "SUCCESSFUL"
            workflows.delete("w")
        costs.append(store.cost)
    assert costs[0] == costs[1]


# ---- others act between the questions


def cancel(store: MemoryStore) -> Callable[[], object]:
    return lambda: lifecycle.cancel(WorkflowStore(store), "w", now=time.time())


@pytest.mark.parametrize(
    "asked",
    [("list", "workflows"), ("get", "epoch"), ("create", "epoch")],
    ids=" ".join,
)
@pytest.mark.parametrize("with_graph", [True, False])
def test_a_workflow_that_is_canceled_during_admission_does_not_run(
    store: Watched, asked: Asked, with_graph: bool
):
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.before[asked] = cancel(store)
        graph = last.bind(first.bind(1))
        goes_on = partial(workflows.run, graph) if with_graph else workflows.resume
        with pytest.raises(WorkflowNotResumableError, match="canceled"):
            goes_on(workflow_id="w")
        assert workflows.get_status("w") == "CANCELED"
    assert calls == []


def test_a_workflow_that_an_owner_has_ended_right_before_its_own_end_does_not_run(store: Watched):
    crash(store)
    workflows_in = WorkflowStore(store)
    record = workflows_in.read_status("w")

    def end() -> None:
        ended = replace(record, status=WorkflowStatus.CANCELED, number=record.number + 1)
        workflows_in.write_status(ended, replaces=record)

    with testing.in_process(store) as workflows:
        store.before["get", "leases"] = end
        with pytest.raises(WorkflowNotResumableError, match="canceled"):
            workflows.resume("w")
    assert calls == []


@pytest.mark.invariant(1, 3)
@pytest.mark.parametrize("asked", [("get", "leases"), ("create", "epoch")], ids=" ".join)
def test_a_task_that_an_owner_has_committed_right_before_its_end_does_not_run_again(
    store: Watched, asked: Asked
):
    """It may go on after its lease has run out, until the next epoch is claimed."""
    crash(store)
    [journal] = [entry.key for entry in store.list("v1/workflows/w") if "journal" in entry.key]
    content = store.get(journal)
    store.delete([journal])
    with testing.in_process(store) as workflows:
        store.before[asked] = lambda: store.put(journal, content)
        assert finish(workflows.resume_async("w")) == 1
    assert calls == ["last"]


def test_an_id_that_another_manager_is_starting_is_looked_up(store: Watched):
    """The first look finds nothing, as the other one has no status yet."""
    with testing.in_process(store) as workflows:
        fail(workflows)
        store.delete([entry.key for entry in store.list(status_folder("w"))])
        store.asked.clear()
        assert finish(workflows.run_async(last.bind(first.bind(1)), workflow_id="w")) == 1
        assert store.asked[:3] == [("list", "status"), ("create", "epoch"), ("list", "status")]
        epochs = [entry.key for entry in store.list("v1/workflows/w") if "epoch" in entry.key]
        assert epochs == ["v1/workflows/w/00000002.epoch"]


# ---- statuses that count no more


def statuses(store: MemoryStore) -> list[str]:
    return [entry.key.split("-")[2] for entry in store.list(status_folder("w"))]


def test_the_end_of_a_run_deletes_all_earlier_statuses_that_crashes_left(
    store: Watched,
):
    with testing.in_process(store) as workflows:
        fail(workflows)
        workflows.resume_async("w")
        workflows.crash()
    effects.gate.set()
    assert statuses(store) == ["FAILED", "RUNNING"]
    with testing.in_process(store) as workflows:
        assert finish(workflows.resume_async("w")) == 1
    assert statuses(store) == ["SUCCESSFUL"]


def test_the_rest_of_a_deletion_hides_no_new_run(store: Watched):
    with testing.in_process(store) as workflows:
        fail(workflows)
        with failing():
            workflows.resume("w")
        store.delete_folder("v1/workflows/w")
        output = workflows.run_async(last.bind(), workflow_id="w", on_existing="restart")
        assert WorkflowStore(store).read_status("w").status is WorkflowStatus.RUNNING
        assert finish(output) == 0
    assert statuses(store) == ["SUCCESSFUL"]
