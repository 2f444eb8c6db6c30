"""One object that can't be read or written stops nothing else, on any back end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem
from sample_records import status_record, store_run

from airflow_provider_rayworkflow.workflow import cli
from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    StorageError,
    WorkflowError,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.orphans import delete_orphaned_events
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import ByteStore, Data, Entry, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.arrow import ArrowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put, put_each
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

GRAPH = Graph(
    tasks=[Task(name="a", function=0, arguments=0, upstream=(), options=TaskOptions())],
    blobs=[b"not a pickle"],
)
LONG = "long" * 60  # its id is not in the name of its status, which has to be read


class Forbidding:
    """A store that denies what concerns the keys with a text, as a bucket's policy may."""

    together = 1
    reads_at_once = 4
    weakness = ""

    def __init__(self, store: ByteStore, text: str, *, is_transient: bool = False) -> None:
        self._store = store
        self._text = text
        self._is_transient = is_transient
        self.uri = "forbidding"

    def check_writable(self) -> None: ...

    def _check(self, key: str, error: type[StorageError]) -> None:
        if self._text in key:
            message = f"Can't reach {key!r}: the server said 403 AccessDenied."
            raise error(message, key=key, is_transient=self._is_transient)

    def put(self, key: str, data: Data) -> None:
        self._check(key, DataSaveError)
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        self._check(key, DataSaveError)
        return self._store.put_if_absent(key, data)

    def put_all(self, puts: Sequence[Put]) -> None:
        put_each(self, puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._check(key, DataLoadError)
        return self._store.get(key, start, length)

    def copy(self, source: str, target: str) -> None:
        self._store.copy(source, target)

    def list(self, folder: str) -> Iterator[Entry]:
        return self._store.list(folder)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._check(key, DataSaveError)
        self._store.delete(keys)

    def delete_folder(self, folder: str) -> None:
        self._check(folder, DataSaveError)
        self._store.delete_folder(folder)


BACK_ENDS: dict[str, Callable[[Path], ByteStore]] = {
    "memory": lambda _: MemoryStore(),
    "local": LocalStore,
    "pyarrow": lambda root: ArrowStore(LocalFileSystem(), str(root), location="", settle_s=0),
}


@pytest.fixture(params=[*BACK_ENDS, "s3"])
def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    if request.param != "s3":
        return BACK_ENDS[request.param](tmp_path / "root")
    from airflow_provider_rayworkflow.workflow.storage import open_store

    return open_store(request.getfixturevalue("s3_uri"))


def add(store: WorkflowStore, workflow_id: str, *, manager_id: str = "m", status: str) -> None:
    record = status_record(
        WorkflowStatus(status), workflow_id, manager_id=manager_id, created_at=1.0, ended_at=2.0
    )
    store_run(store, record, GRAPH)


@pytest.mark.parametrize("part", ["v1/status/bad/", "v1/workflows/bad/", "v1/workflows/bad"])
def test_prune_skips_and_names_what_it_may_not_touch_and_does_the_rest(
    back_end: ByteStore, part: str
):
    for workflow_id in ("a", "bad", "z"):
        add(WorkflowStore(back_end), workflow_id, status="SUCCESSFUL")
    store = WorkflowStore(Forbidding(back_end, part))
    problems: list[str] = []
    pruned = prune(store, older_than_s=1, now=time.time(), report=problems.append)
    assert [one.workflow_id for one in pruned] == ["a", "z"]
    [problem] = problems
    assert problem.startswith("Workflow bad is not pruned: ")
    assert "403" in problem
    assert list(WorkflowStore(back_end).list_statuses()) == ["bad"]


def test_prune_gives_up_when_the_storage_as_a_whole_does_not_answer():
    memory = MemoryStore()
    for number in range(9):
        add(WorkflowStore(memory), f"w{number}", status="SUCCESSFUL")
    store = WorkflowStore(Forbidding(memory, "v1/status", is_transient=True))
    problems: list[str] = []
    with pytest.raises(DataLoadError):
        prune(store, older_than_s=1, now=time.time(), report=problems.append)
    assert len(problems) == 3


def test_a_list_names_the_workflow_whose_status_it_may_not_read(back_end: ByteStore):
    for workflow_id in ("a", LONG, "z"):
        add(WorkflowStore(back_end), workflow_id, status="FAILED")
    store = WorkflowStore(Forbidding(back_end, "v1/status/long"))
    problems: list[WorkflowError] = []
    found = StatusReader(store, lambda: 1.0).list_workflows(problems.append)
    assert [workflow_id for workflow_id, _, _ in found] == ["a", "z"]
    assert ["v1/status/long" in str(problem) for problem in problems] == [True]


def test_a_lease_that_can_not_be_read_hides_no_workflow_and_lets_none_be_taken_over(
    back_end: ByteStore,
):
    lease = Lease(manager_id="m", actor_id="a", process=Process.current(), renewed_at=time.time())
    WorkflowStore(back_end).leases.write(lease)
    add(WorkflowStore(back_end), "running", status="RUNNING")
    add(WorkflowStore(back_end), "done", manager_id="other", status="SUCCESSFUL")
    store = WorkflowStore(Forbidding(back_end, "v1/leases/m"))
    problems: list[WorkflowError] = []
    reader = StatusReader(store)
    found = reader.list_workflows(problems.append)
    assert [workflow_id for workflow_id, _, _ in found] == ["done", "running"]
    assert ["v1/leases/m" in str(problem) for problem in problems] == [True]
    assert not reader.look().may_be_replaced("m")


# ---- a folder that can't be listed: of files only


class Closed(MemoryStore):
    """Lists all but one folder, as a local file system does without the right."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder
        self.is_closed = False

    def list(self, folder: str) -> Iterator[Entry]:
        problem = DataLoadError(
            f"Can't list {self._folder!r}: Permission denied.", key=self._folder
        )
        if self.is_closed and folder.startswith(self._folder):
            raise problem
        for entry in super().list(folder):
            if not (self.is_closed and entry.key.startswith(self._folder + "/")):
                yield entry
        if self.is_closed:
            yield Entry(self._folder + "/", 0, problem)


def test_the_end_of_a_workflow_whose_folder_was_closed_for_a_while_is_passed_on_once():
    memory = Closed("v1/status/bad")
    store = WorkflowStore(memory)
    completions = Completions(store, "watcher", statuses={WorkflowStatus.SUCCESSFUL})
    completions.look()
    add(store, "bad", status="SUCCESSFUL")
    [end] = completions.look()
    completions.confirm([end])
    memory.is_closed = True
    assert completions.look() == []
    memory.is_closed = False
    assert completions.look() == []


def test_events_of_a_workflow_whose_folder_is_closed_are_not_those_of_an_unknown_one():
    memory = Closed("v1/status/bad")
    store = WorkflowStore(memory)
    add(store, "bad", status="RUNNING")
    memory.put("v1/events/bad/key/00000001.json", b"an event, damaged")
    memory.is_closed = True
    assert delete_orphaned_events(store, time.time()) == 0


def test_the_command_does_the_rest_and_says_so_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for workflow_id in ("a", "bad", "z"):
        add(WorkflowStore(LocalStore(tmp_path)), workflow_id, status="SUCCESSFUL")
    (tmp_path / "v1/status/bad" / "odd").symlink_to("/")
    [status] = (tmp_path / "v1/status/bad").glob("*.json")
    status.write_bytes(b"torn")
    assert cli.main(["prune", "--older-than", "1s", "--storage", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "2 workflows are pruned" in out
    assert "Workflow bad is not pruned: The stored object 'v1/status/bad/" in err
