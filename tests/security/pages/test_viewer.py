"""What a viewer of the pages can do to Airflow's API server, and learn from it: nothing more."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
import pytest
from conftest import INTERNAL, Silent
from live_airflow import LiveAirflow
from sample_records import claim_epoch, status_record

from airflow_provider_rayworkflow.workflow.format.documents import dump_document, dump_line
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import (
    JsonOutput,
    StatusRecord,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys, open_store
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_key

pytestmark = [pytest.mark.airflow, pytest.mark.live, pytest.mark.slow]

GOOD = "a good one"
ORIGIN: dict[str, Any] = {
    **{"dag_id": "ui_flights", "task_id": "daily", "run_id": "r", "map_index": -1},
    **{"run_after": "x", "life": "x", "max_tries": 0, "inputs": "x"},
}


class Attacker:
    """A user, and what they ask the API server for."""

    def __init__(self, airflow: LiveAirflow, name: str) -> None:
        self._headers = {"Authorization": f"Bearer {airflow.token((name, name))}"}
        self._url = airflow.url

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            trust_env=False,
            timeout=240,
            limits=httpx.Limits(max_connections=200),
        )

    def get(self, path: str, **query: str) -> httpx.Response:
        return httpx.get(
            f"{self._url}/rayworkflow/{path}?{urlencode(query)}",
            headers=self._headers,
            trust_env=False,
            timeout=240,
        )

    def post(self, content: bytes) -> httpx.Response:
        return httpx.post(
            f"{self._url}/rayworkflow/workflow/action",
            headers=self._headers | {"X-RayWorkflow": "1", "Content-Type": "application/json"},
            content=content,
            trust_env=False,
            timeout=240,
        )


@pytest.fixture(scope="module")
def store(root: Path) -> WorkflowStore:
    store = WorkflowStore(open_store(str(root)))
    add(store, GOOD)
    return store


@pytest.fixture(scope="module")
def viewer(airflow: LiveAirflow, store: WorkflowStore) -> Attacker:
    """Sees all DAGs and no connection."""
    return Attacker(airflow, "viewer")


@pytest.fixture(scope="module")
def admin(airflow: LiveAirflow, store: WorkflowStore) -> Attacker:
    return Attacker(airflow, "admin")


def record_of(workflow_id: str, **changes: Any) -> StatusRecord:
    record = status_record(
        WorkflowStatus.SUCCESSFUL,
        workflow_id,
        number=1,
        created_at=1_700_000_000.0,
        user_metadata={"airflow": ORIGIN},
    )
    return replace(record, **changes)


def add(store: WorkflowStore, workflow_id: str, **changes: Any) -> None:
    """A workflow of one task that has ended."""
    graph = Graph(tasks=[Task(name="t", function=0, arguments=0)], blobs=[b"no pickle"])
    claim_epoch(store, workflow_id, graph, user_metadata={"airflow": ORIGIN})
    store.write_status(record_of(workflow_id, **changes))


def ids(answer: httpx.Response) -> list[str]:
    cells = re.findall(r'<td class="id"><a [^>]*>([^<]*)</a>', answer.text)
    return [unescape(cell) for cell in cells]


# ---- one storage that hangs


@pytest.mark.parametrize("conn_id", ["silent", "busy"])
def test_a_storage_that_does_not_answer_hinders_neither_tasks_nor_other_pages(
    viewer: Attacker, airflow: LiveAirflow, silent: Silent, conn_id: str
):
    """Fifty requests of one viewer: what tasks need is answered while they are pending."""
    asked = {"conn_id": conn_id, "workflow_id": "w"}
    meanwhile = [
        "/execution/health",
        "/api/v2/monitor/health",
        "/rayworkflow/workflows?conn_id=ray",
    ]

    async def attack() -> tuple[list[httpx.Response], dict[str, int]]:
        answered = dict.fromkeys(meanwhile, 0)
        async with viewer.client() as one, viewer.client() as other:
            paths = ["workflow/live", "workflow", "workflow/group", "workflow/task", "workflows"]
            more = {"label": "x", "task_id": "x"}
            pending = [
                asyncio.ensure_future(
                    one.get(f"/rayworkflow/{paths[number % 5]}", params=asked | more)
                )
                for number in range(50)
            ]
            while not all(request.done() for request in pending):
                for path in meanwhile:
                    answer = await other.get(path)
                    assert answer.status_code == 200
                    answered[path] += not all(request.done() for request in pending)
            return await asyncio.gather(*pending), answered

    answers, answered = asyncio.run(attack())
    assert {answer.status_code for answer in answers} <= {503, 404, 200}
    if conn_id == "silent":
        assert {answer.status_code for answer in answers} == {503}
        assert "does not answer in time" in answers[0].text
        assert len(silent.accepted) <= 30
    assert min(answered.values()) > 0, answered
    assert GOOD in ids(viewer.get("workflows", conn_id="ray"))


# ---- memory


def test_a_page_over_large_outputs_leaves_the_server_small(
    airflow: LiveAirflow, viewer: Attacker, store: WorkflowStore, root: Path
):
    body = record_of("x", output=JsonOutput(value="x" * 63_000)).to_json()
    written = []

    def show(**chosen: str) -> None:
        # On a busy machine it may take longer than a page waits.
        while (answer := viewer.get("workflows", conn_id="ray", **chosen)).status_code == 503:
            pass
        assert answer.status_code == 200

    try:
        for number in range(2000):
            path = root / status_key(record_of(f"large {number}"))
            path.parent.mkdir(parents=True)
            path.write_bytes(dump_line("status", body | {"workflow_id": f"large {number}"}))
            written.append(path)
        server = psutil.Process(airflow._processes["api-server"].pid)
        servers = [server, *server.children(recursive=True)]
        before = sum(process.memory_info().rss for process in servers)
        for sort in ("created", "ended", "id", "created"):
            show(sort=sort)
        grown = sum(process.memory_info().rss for process in servers) - before
    finally:
        for path in written:
            path.unlink()
            path.parent.rmdir()
    assert grown < 400_000_000


# ---- odd documents


def odd(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body | changes


def deep(body: dict[str, Any]) -> str:
    return json.dumps(body)[:-1] + f', "more": {"[" * 100_000}{"]" * 100_000}}}'


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nan": odd(started_at=float("nan")),
    "huge time": odd(started_at=1e300),
    "endless time": odd(ended_at=float("inf")),
    "before all time": odd(created_at=float("-inf")),
    "negative time": odd(started_at=-1e11),
    "absurd count": odd(tasks_total=10**30),
    "enormous count": odd(tasks_done=10**4_000),
    "negative count": odd(tasks_done=-1),
    "text for a number": odd(tasks_total="7"),
    "a list for a text": odd(stopped_by=["x"]),
    "a number for metadata": odd(user_metadata=7),
    "odd failure": odd(failure={"task_id": 1}),
    "odd progress": odd(progress=[1]),
    "odd output": odd(output="x"),
    "surrogate in the id": odd(workflow_id="\ud800"),
    "deep": deep,
    "no object": lambda body: [],
    "unknown fields": odd(what=1),
}

#: These are no damage: pages show them escaped.
SHOWN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "surrogate in the output": odd(output={"value": "caf\udce9", "problem": ""}),
    "surrogate in metadata": odd(user_metadata={"airflow": ORIGIN, "\udce9": "\ud800"}),
    "surrogate in the dag": odd(user_metadata={"airflow": ORIGIN | {"dag_id": "\ud800"}}),
    "nul in the dag": odd(user_metadata={"airflow": ORIGIN | {"dag_id": "\0"}}),
    "enormous map index": odd(user_metadata={"airflow": ORIGIN | {"map_index": 10**400}}),
    "nan in the output": odd(output={"value": [float("nan")], "problem": ""}),
    "surrogate in an error": odd(
        status="FAILED",
        failure=TaskFailure(
            task_id="\udce9", type="E\ud800", message="m\udce9", traceback="\udce9"
        ).to_json(),
    ),
}


@pytest.fixture(params=[*ODD, *SHOWN])
def odd_one(request: pytest.FixtureRequest, store: WorkflowStore, root: Path) -> Iterator[str]:
    """The id of a workflow whose status document is odd."""
    workflow_id = f"odd {request.param}"
    add(store, workflow_id)
    record = record_of(workflow_id)
    made = (ODD | SHOWN)[request.param](record.to_json())
    path = root / status_key(record)
    text = made if isinstance(made, str) else None
    if text is None:
        path.write_bytes(dump_line("status", made))
    else:
        line = dump_line("status", record.to_json())
        path.write_bytes(line.replace(b'{"body":', b'{"body":' + text.encode() + b',"old":', 1))
    if made and isinstance(made, dict) and made["status"] == "FAILED":
        failed = path.with_name(path.name.replace("SUCCESSFUL", "FAILED"))
        path.rename(failed)
        path = failed
    yield workflow_id
    store.delete(workflow_id)


def ask_all(user: Attacker, workflow_id: str) -> dict[str, int]:
    of = {"conn_id": "ray", "workflow_id": workflow_id}
    paths = ["workflow", "workflow/live", "workflow/group", "workflow/task"]
    return {path: user.get(path, **of, label="t", task_id="t").status_code for path in paths}


def test_an_odd_document_is_damage_of_its_own_row(
    admin: Attacker, viewer: Attacker, odd_one: str, request: pytest.FixtureRequest
):
    is_damaged = odd_one.removeprefix("odd ") in ODD
    listed = admin.get("workflows", conn_id="ray")
    assert listed.status_code == 200
    assert {GOOD, odd_one} <= set(ids(listed))
    row = next(row for row in listed.text.split("<tr>") if f">{odd_one}</a>" in row)
    assert ("its status is damaged" in row) == is_damaged
    assert GOOD in ids(viewer.get("workflows", conn_id="ray"))
    seen = ask_all(admin, odd_one)
    assert set(seen.values()) <= ({502} if is_damaged else {200, 404})
    assert set(ask_all(viewer, odd_one).values()) <= {200, 404}
    assert ask_all(viewer, GOOD)["workflow/live"] == 200


def test_a_workflow_without_its_folder_is_not_found(
    viewer: Attacker, store: WorkflowStore, root: Path
):
    """A status without its folder: its claim and graph are gone."""
    add(store, "without folder")
    store.bytes.delete_folder(keys.workflow_folder("without folder"))
    assert ask_all(viewer, "without folder") == {
        "workflow": 200,
        "workflow/live": 404,
        "workflow/group": 404,
        "workflow/task": 404,
    }
    assert "without folder" in ids(viewer.get("workflows", conn_id="ray"))
    store.delete("without folder")
    assert set(ask_all(viewer, "without folder").values()) == {404}


def test_links_that_go_round_in_a_circle_are_no_end(
    viewer: Attacker, store: WorkflowStore, root: Path
):
    loop = root / "v1/status/loop"
    loop.symlink_to(loop)
    (root / "v1/status/dangling").symlink_to(root / "nowhere")
    add(store, "with loop")
    inside = root / status_key(record_of("with loop", number=2))
    inside.symlink_to(inside)
    try:
        assert GOOD in ids(viewer.get("workflows", conn_id="ray"))
        assert set(ask_all(viewer, "loop").values()) <= {404}
        assert not set(ask_all(viewer, "with loop").values()) & {500, 503}
    finally:
        for link in (loop, root / "v1/status/dangling", inside):
            link.unlink()
        with suppress(Exception):
            store.delete("with loop")


def test_a_pipe_in_place_of_a_status_hangs_nothing(
    viewer: Attacker, admin: Attacker, store: WorkflowStore, root: Path
):
    pipe = root / status_key(record_of("pipe"))
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    try:
        assert GOOD in ids(viewer.get("workflows", conn_id="ray"))
        assert not set(ask_all(admin, "pipe").values()) & {200, 500, 503}
    finally:
        pipe.unlink()
        pipe.parent.rmdir()


def test_a_continuation_that_made_itself_ends(viewer: Attacker, store: WorkflowStore, root: Path):
    from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord

    add(store, "circle")
    graph = Graph(tasks=[Task(name="t", function=0, arguments=0)], blobs=[b"no pickle"])
    frame = TaskRecord(task_id="t", graph=graph.to_bytes(), task_ids=("t",)).to_frame()
    content = b"".join(bytes(part) for part in frame)
    key = keys.journal_key("circle", 1, 0)
    store.bytes.put(
        key, dump_document(key, "journal", {"epoch": 1, "size": len(content)}, [content])
    )
    seen = ask_all(viewer, "circle")
    assert not set(seen.values()) & {500, 503}, seen
    store.delete("circle")


@pytest.mark.parametrize(
    "content",
    [
        b'{"conn_id": "ray", "workflow_id": "\\ud800", "action": "cancel"}',
        b'{"conn_id": "\\u0000", "workflow_id": "w", "action": "cancel"}',
        b'{"conn_id": "ray", "workflow_id": "w", "action": "\\udfff"}',
        b'{"conn_id": ["ray"], "workflow_id": 1e999, "action": NaN}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
        b'{"conn_id": "' + b"x" * 1_000_000 + b'"}',
    ],
)
def test_an_odd_request_is_refused_and_not_repeated(viewer: Attacker, content: bytes):
    answer = viewer.post(content)
    assert answer.status_code in (400, 404, 422)
    assert len(answer.content) < 1000


# ---- size


def test_a_large_message_and_a_deep_output_make_no_large_page(
    viewer: Attacker, store: WorkflowStore
):
    long = "x" * 5_000_000
    value: Any = ["x"] * 12_000
    for _ in range(450):
        value = [value]
    add(store, "deep", output=JsonOutput(value=value))
    failure = TaskFailure(task_id="t", type=long, message=long, traceback=long)
    add(store, "long", status=WorkflowStatus.FAILED, failure=failure)
    for workflow_id in ("deep", "long"):
        for path in ("workflow", "workflow/live"):
            answer = viewer.get(path, conn_id="ray", workflow_id=workflow_id)
            assert answer.status_code == 200
            assert len(answer.content) < 1_000_000
        store.delete(workflow_id)


# ---- what a page tells


@pytest.mark.parametrize("path", ["workflow", "workflow/live", "workflow/group", "workflow/task"])
def test_nothing_tells_an_unknown_connection_from_one_that_can_not_be_read(
    viewer: Attacker, path: str
):
    """Nor from a workflow that is not there, or not theirs."""
    answers = {
        conn_id: viewer.get(path, conn_id=conn_id, workflow_id="w", label="x", task_id="x")
        for conn_id in ("missing", "no_folder", "internal", "internal_html", "ray")
    }
    assert {answer.status_code for answer in answers.values()} == {404}
    assert len({answer.text for answer in answers.values()}) == 1


def test_a_damaged_workflow_looks_like_one_that_is_not_there(
    viewer: Attacker, store: WorkflowStore, root: Path
):
    add(store, "torn")
    (root / status_key(record_of("torn"))).write_text("{")
    torn, missing = (
        viewer.get("workflow", conn_id="ray", workflow_id=name) for name in ("torn", "missing")
    )
    assert (torn.status_code, torn.text) == (missing.status_code, missing.text)
    store.delete("torn")


def test_lists_of_unknown_and_unreadable_connections_look_alike(viewer: Attacker):
    lists = {
        conn_id: viewer.get("workflows", conn_id=conn_id).text.replace(conn_id, "…")
        for conn_id in ("missing", "no_folder", "internal", "internal_html")
    }
    assert len(set(lists.values())) == 1


@pytest.mark.parametrize("user", ["viewer", "admin"])
@pytest.mark.parametrize("conn_id", ["internal", "internal_html", "busy"])
def test_what_another_service_answers_goes_to_the_log_only(
    airflow: LiveAirflow, user: str, conn_id: str, root: Path
):
    attacker = Attacker(airflow, user)
    for path in ("workflows", "workflow", "workflow/live", "workflow/task"):
        answer = attacker.get(path, conn_id=conn_id, workflow_id="w", task_id="x")
        assert answer.status_code != 500
        for secret in (INTERNAL, "127.0.0.1", "s3cr3t", str(root)):
            assert secret not in answer.text
    body = {"conn_id": conn_id, "workflow_id": "w", "action": "cancel"}
    assert INTERNAL not in attacker.post(json.dumps(body).encode()).text
