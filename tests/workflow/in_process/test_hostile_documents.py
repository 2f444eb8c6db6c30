"""Foreign documents and bombs are refused by name, and hide no other workflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import claim_epoch

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    dump_frame,
    dump_line,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import prune
from airflow_provider_rayworkflow.workflow.offline.describe import describe_graph, describe_workflow
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.events import EventStore, StoredEvent
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Owner, StopRequest
from airflow_provider_rayworkflow.workflow.storage.status_documents import (
    MAX_STATUS_BYTES,
    status_key,
)
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

Json = dict[str, Any]
NOW = 1_000.0


# ---- one document of each kind, and who reads it


def status(**changes: Any) -> StatusRecord:
    fields: Json = {
        "workflow_id": "w",
        "status": WorkflowStatus.RUNNING,
        "epoch": 1,
        "number": 0,
        "manager_id": "m",
        "created_at": 1.0,
        "started_at": 2.0,
        "tasks_total": 1,
    }
    return StatusRecord(**fields | changes)


LEASE = Lease(
    manager_id="m",
    actor_id="a",
    process=Process(host="elsewhere", machine="other/1", pid=1, started="1"),
    renewed_at=NOW,
)
EVENT = StoredEvent(workflow_id="w", event_key="k", payload={"n": 1}, number=0, posted_at=1.5)
OWNER = Owner(workflow_id="w", token="t", submission_id="", since=1.0)
REQUEST = StopRequest(workflow_id="w", token="t", how="cancel", requested_at=1.0)
GRAPH = Graph(tasks=[Task(name="t", function=0, arguments=1)], blobs=[b"f", b"a"])
CLAIM: Json = {
    "workflow_id": "w",
    "epoch": 1,
    "manager_id": "m",
    "claimed_at": 1.0,
    "graph_epoch": 1,
    "base_epoch": 1,
    "user_metadata": {},
}
RECORD: Json = {
    "task": "t",
    "form": "value",
    "encoding": "json",
    "times": {"started_at": 1.0, "ended_at": 2.0, "attempt": 1},
}


@dataclass(frozen=True)
class Kind:
    """A kind of document: where it lies, what is in it, what is behind its line, and who reads it."""

    key: str
    kind: str
    body: Json
    read: Callable[[WorkflowStore], object]
    rest: tuple[Any, ...] = ()

    def dump(self, body: Json) -> bytes:
        if not self.rest:
            return dump_line(self.kind, body)
        return b"".join(bytes(part) for part in dump_document(self.key, self.kind, body, self.rest))

    def store(self, data: bytes) -> WorkflowStore:
        store = MemoryStore()
        store.put(self.key, data)
        return WorkflowStore(store)


def read_status(store: WorkflowStore) -> object:
    """All that is made of a status that could be read."""
    found = StatusReader(store, lambda: NOW).read("w")
    assert found is not None
    describe_workflow(found.honest_record)
    store.write_status(found.honest_record)
    prune.prune(store, older_than_s=1, now=NOW, statuses=["RESUMABLE", "SUCCESSFUL"], dry_run=True)
    return found


def read_lease(store: WorkflowStore) -> object:
    store.leases.list_all()
    StatusReader(store, lambda: NOW).look().is_alive("m")
    return store.leases.read("m")


def watcher(store: WorkflowStore) -> Completions:
    return Completions(store, "watcher", statuses=["SUCCESSFUL"])


def read_claim(store: WorkflowStore) -> object:
    store.read_run("w", 1)[1]
    return describe_graph(store, status())


KINDS = {
    "status": Kind(
        "v1/status/w/00000001-0000-RUNNING-m.json", "status", status().to_json(), read_status
    ),
    "lease": Kind("v1/leases/m.json", "lease", LEASE.to_json(), read_lease),
    "event": Kind(
        keys.event_key("w", "k", 0),
        "event",
        EVENT.to_json(),
        lambda store: EventStore(store.bytes).read("w", "k", 0),
    ),
    "owner": Kind(
        keys.owner_key("w"),
        "owner",
        asdict(OWNER),
        lambda store: Mailbox(store.bytes).read_owner("w"),
    ),
    "request": Kind(
        keys.request_key("w", "t"),
        "request",
        asdict(REQUEST),
        lambda store: Mailbox(store.bytes).read_request("w", "t"),
    ),
    "epoch": Kind(
        keys.epoch_key("w", 1),
        "epoch",
        CLAIM | {"graph": GRAPH.to_json()},
        read_claim,
        tuple(GRAPH.dump_blobs()),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_each_is_read_as_it_was_written(kind: Kind):
    assert kind.read(kind.store(kind.dump(kind.body))) is not None


# ---- bombs

LINE = dump_line("status", {})
BOMBS = {
    "empty": b"",
    "a line end": b"\n",
    "not UTF-8": b"\xff\xfe{}\n",
    "UTF-16": '{"body":{}}\n'.encode("utf-16"),
    "NUL bytes": b"\0" * 100_000 + b"\n",
    "nested lists": b"[" * 1_000_000 + b"\n",
    "nested objects": b'{"a":' * 1_000_000 + b"\n",
    "nested and closed": b'{"body":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
    "a number of a million digits": b'{"v":' + b"9" * 1_000_000 + b"}\n",
    "an exponent": b'{"body":{},"kind":"status","sum":"0","v":1e999}\n',
    "a list": b"[1,2,3]\n",
    "a number": b"7\n",
    "half": LINE[: len(LINE) // 2] + b"\n",
    "twice": LINE + LINE,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_by_its_key(kind: Kind, bomb: str):
    with pytest.raises(DataLoadError, match=kind.key):
        kind.store(BOMBS[bomb]).read_claim("w", 1) if kind.kind == "epoch" else read_strictly(
            kind, BOMBS[bomb]
        )


def read_strictly(kind: Kind, data: bytes) -> object:
    """Read one document; a damaged lease is left out of lists, so it is asked for by name."""
    store = kind.store(data)
    return store.leases.read("m") if kind.kind == "lease" else kind.read(store)


@pytest.mark.parametrize("depth", [500, 900, 5_000])
def test_a_deeply_nested_document_is_read_or_refused_by_its_key(kind: Kind, depth: int):
    """With a checksum that is right: only its form is hostile."""
    nested = "[" * depth + "]" * depth
    content = json.dumps(kind.body, separators=(",", ":"), sort_keys=True)[:-1]
    content += f',"zz":{nested}}}'
    line = (
        f'{{"body":{content},"kind":"{kind.kind}","sum":"{crc32(content.encode()):08x}","v":1}}\n'
    )
    with pytest.raises(DataLoadError, match=kind.key):
        read_strictly(kind, line.encode())


def test_a_nested_header_of_a_checkpoint_is_refused_by_its_key():
    header = b'{"task":"t","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    frame = b"%08x %d 0\n%b\n" % (crc32(header), len(header), header)
    key = keys.journal_key("w", 1, 0)
    store = WorkflowStore(MemoryStore())
    store.bytes.put(key, dump_document(key, "journal", {"epoch": 1, "size": len(frame)}, [frame]))
    [damage] = store.read_checkpoints("w").damaged
    assert damage.key == key


# ---- any content, with a checksum that is right

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def changed(draw: st.DrawFn, body: Json) -> Json:
    """The body with some fields changed, added or left out, at any depth."""
    result = dict(body)
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=3, unique=True)):
        value = result[name]
        how = draw(st.sampled_from(["leave out", "replace", "inside"]))
        if how == "leave out":
            del result[name]
        elif how == "inside" and isinstance(value, dict) and value:
            result[name] = draw(changed(value))
        elif how == "inside" and isinstance(value, list) and value and isinstance(value[0], dict):
            result[name] = [draw(changed(value[0])), *value[1:]]
        else:
            result[name] = draw(JSON)
    return result | draw(st.dictionaries(st.text(max_size=5), JSON, max_size=1))


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_content_is_understood_or_refused(name: str, data: st.DataObject):
    kind = KINDS[name]
    body = data.draw(changed(kind.body))
    with contextlib.suppress(DataLoadError, WorkflowNotFoundError):
        kind.read(kind.store(kind.dump(body)))


@given(header=changed(RECORD), payload=st.binary(max_size=20))
def test_any_record_of_a_journal_is_understood_or_refused(header: Json, payload: bytes):
    key = keys.journal_key("w", 1, 0)
    frame = b"".join(bytes(part) for part in dump_frame(header, [payload]))
    store = WorkflowStore(MemoryStore())
    store.bytes.put(key, dump_document(key, "journal", {"epoch": 1, "size": len(frame)}, [frame]))
    checkpoints = store.read_checkpoints("w")
    claim = next_claim("w", after=0, manager_id="m", now=0, user_metadata={}, has_graph=True)
    for task_id in checkpoints.records:
        graph = Graph(tasks=[Task(name=task_id, function=0)], blobs=[b""])
        with contextlib.suppress(CorruptedDataError):  # a continuation that is no graph
            assert read_all(Snapshot(claim=claim, graph=graph, checkpoints=checkpoints)) == 1
    assert len(checkpoints.records) + len(checkpoints.failures) + len(checkpoints.damaged) <= 1


def read_all(snapshot: Snapshot) -> int:
    return sum(snapshot.result_of(placed.task_id) is not None for placed in snapshot.tasks())


NUMBERS: dict[str, tuple[str, Any]] = {
    "nan": ("started_at", float("nan")),
    "infinite": ("ended_at", float("inf")),
    "beyond the calendar": ("created_at", 1e300),
    "the year 10000": ("started_at", 253_402_300_800),
    "negative time": ("created_at", -1.0),
    "an enormous time": ("started_at", 10**400),
    "negative count": ("tasks_total", -1),
    "absurd count": ("tasks_done", 2**63),
    "a truth for a count": ("tasks_done", True),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_no_reader_could_show_are_damage(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = WorkflowStore(LocalStore(tmp_path))
    store.write_status(status(workflow_id="good", status=WorkflowStatus.SUCCESSFUL))
    odd = status(status=WorkflowStatus.SUCCESSFUL)
    field, value = NUMBERS[name]
    store.bytes.put(status_key(odd), dump_line("status", odd.to_json() | {field: value}))
    with pytest.raises(CorruptedDataError, match=field):
        store.read_status("w")
    assert main(["list", "--storage", str(tmp_path)]) == 0
    assert {"good", "w"} <= set(capsys.readouterr().out.split())
    assert main(["status", "w", "--storage", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main(["status", "good", "--storage", str(tmp_path)]) == 0


def test_a_status_document_has_a_size_beyond_which_it_is_not_read():
    store = WorkflowStore(MemoryStore())
    key = status_key(status())
    store.bytes.put(key, dump_line("status", {"x": "x" * MAX_STATUS_BYTES}))
    with pytest.raises(CorruptedDataError, match="more than 8,388,608 bytes"):
        store.read_status("w")


# ---- no workflow is hidden


@pytest.fixture
def two() -> WorkflowStore:
    """Two workflows, an ended and a running one, with all that a storage may have."""
    store = WorkflowStore(MemoryStore())
    claim_epoch(store, "good", GRAPH)
    store.write_status(
        status(workflow_id="good", status=WorkflowStatus.SUCCESSFUL, number=1, ended_at=3.0)
    )
    claim_epoch(store, "runs", GRAPH)
    store.write_status(status(workflow_id="runs"))
    store.leases.write(LEASE)
    Mailbox(store.bytes).request_stop(
        StopRequest(workflow_id="runs", token="t", how="suspend", requested_at=1.0)
    )
    return store


FOREIGN = [
    "v1/status/%ff/00000001-0000-RUNNING-m.json",  # not UTF-8
    "v1/status/%/00000001-0000-RUNNING-m.json",
    "v1/status/%zz/00000001-0000-RUNNING-m.json",
    "v1/status/Good/00000001-0000-RUNNING-m.json",  # a capital letter is never there
    "v1/status/%67ood/00000009-0000-FAILED-m.json",  # another spelling of "good"
    "v1/status/a~b/00000001-0000-RUNNING-m.json",  # as if it were too long for a name
    "v1/status/%2e%2e/00000001-0000-RUNNING-m.json",
    "v1/status/x\u00e9/00000001-0000-RUNNING-m.json",
    "v1/requests/runs/a.json",
    "v1/requests/stray.json",
    "v1/leases/x.json",
    "v1/leases/deep/m.json",
    "v1/events/runs/k/notes.txt",
    "v1/events/runs/stray",
    "v1/owners/stray/x.json",
]
CONTENTS = {
    "empty": b"",
    "nested": b"[" * 100_000,
    "another document": dump_line("owner", {}),
    "a status": dump_line("status", status(workflow_id="good").to_json()),
    "a request": dump_line("request", {"how": 7}),
}


@pytest.mark.invariant(11)
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("key", FOREIGN)
def test_a_foreign_file_hides_no_workflow(two: WorkflowStore, key: str, content: str):
    two.bytes.put(key, CONTENTS[content])
    shown = {
        name: status
        for name, status, _ in StatusReader(two, lambda: NOW).list_workflows()
        if name in ("good", "runs")
    }
    assert shown == {"good": "SUCCESSFUL", "runs": "RUNNING"}
    assert [request.workflow_id for request in Mailbox(two.bytes).list_requests()] == ["runs"]
    assert "m" in {lease.manager_id for lease in two.leases.list_all()}
    assert EventStore(two.bytes).read_all("runs") == []
    two.delete_earlier("runs", 1)
    watched = watcher(two)
    watched.look()
    pruned = prune.prune(two, older_than_s=1, now=NOW, statuses=["SUCCESSFUL"])
    assert [one.workflow_id for one in pruned] == ["good"]
