"""What is done to all workflows that a filter selects: which ones, by which rights, and what is told of failures."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from dag_test import connection
from fastapi import HTTPException
from pydantic import ValidationError
from sample_records import status_record, store_run
from stored import origin

from airflow_provider_rayworkflow.plugin.web.actions import ClusterAwayError, PageAction, act
from airflow_provider_rayworkflow.plugin.web.bulk import (
    BatchDone,
    BulkBody,
    Selected,
    act_on_batch,
    bulk_offers,
    count_selected,
    statuses_for,
)
from airflow_provider_rayworkflow.plugin.web.chosen import Chosen
from airflow_provider_rayworkflow.plugin.web.lists import list_page
from airflow_provider_rayworkflow.plugin.web.seals import seal
from airflow_provider_rayworkflow.plugin.web.storages import open_hook
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

RESUME, CANCEL, DELETE = PageAction.RESUME, PageAction.CANCEL, PageAction.DELETE
SUCCESSFUL, FAILED = WorkflowStatus.SUCCESSFUL, WorkflowStatus.FAILED


class Rights:
    """A user who may do some things to the workflows of some DAGs; ``""`` is the connection."""

    def __init__(self, **methods: set[str] | None) -> None:
        self._methods = methods

    def allows(self, method: str, conn_id: str, origin: Any) -> bool:
        dag_ids = self._methods.get(method, None if not self._methods else set())
        return dag_ids is None or (origin.key.dag_id if origin else "") in dag_ids

    def allows_connection(self, method: str, conn_id: str) -> bool:
        return self.allows(method, conn_id, None)

    def check(self, method: str, conn_id: str, origin: Any) -> None:
        if not self.allows(method, conn_id, origin):
            raise HTTPException(403, "You may see this workflow, and not act on it.")

    def fail(self, conn_id: str) -> None:
        raise HTTPException(502, "It can't be read.")

    def refuse(self) -> None:
        raise HTTPException(404, "There is no such workflow.")


EVERYTHING = Rights()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkflowStore:
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL", connection(storage=str(tmp_path / "storage")))
    return WorkflowStore(open_store(str(tmp_path / "storage")))


def add(
    store: WorkflowStore,
    workflow_id: str,
    status: WorkflowStatus = FAILED,
    *,
    dag_id: str = "",
    created_at: float = 1.0,
) -> None:
    graph = Graph(tasks=[Task(name="t", function=0, arguments=0)], blobs=[b"no pickle"])
    metadata = {"airflow": origin(dag_id, "t", workflow_id)} if dag_id else {}
    record = status_record(status, workflow_id, created_at=created_at, user_metadata=metadata)
    store_run(store, record, graph)


def count(
    chosen: Chosen, action: PageAction, rights: Rights = EVERYTHING, **options: Any
) -> Selected:
    return count_selected(open_hook("local"), rights, chosen, action, **options)


def do(action: PageAction, rights: Rights = EVERYTHING, **fields: Any) -> dict[str, Any]:
    options = {name: fields.pop(name) for name in ("act_on", "at_once") if name in fields}
    body = BulkBody(conn_id="local", action=action, **{"before": 100.0, "most": 100} | fields)
    return act_on_batch(rights, body, **options)


def statuses(store: WorkflowStore) -> dict[str, str]:
    return {name: key.status.value for name, key in store.list_statuses().items()}


# ---- which ones


def test_an_action_is_for_the_workflows_that_allow_it(store: WorkflowStore):
    for status in (SUCCESSFUL, FAILED, WorkflowStatus.RESUMABLE, WorkflowStatus.CANCELED):
        add(store, status.value, status)
    counts = {action: count(Chosen(), action).count for action in (RESUME, CANCEL, DELETE)}
    assert counts == {RESUME: 2, CANCEL: 2, DELETE: 4}
    assert count(Chosen(status=["SUCCESSFUL"]), CANCEL) == Selected()
    assert statuses_for(Chosen(status=["FAILED", "SUCCESSFUL"]), RESUME) == ["FAILED"]


def test_more_than_the_bound_is_told(store: WorkflowStore):
    for number in range(5):
        add(store, f"w{number}")
    assert count(Chosen(), DELETE, most=3) == Selected(count=3, is_more=True)
    assert count(Chosen(), DELETE, most=5) == Selected(count=5)


def test_ids_that_begin_with_the_text_and_those_that_have_it_elsewhere_are_counted(store):
    for name in ("flight-1", "flight-2", "a flight", "trip"):
        add(store, name)
    assert count(Chosen(text="flight"), DELETE) == Selected(count=3)


def test_only_what_the_user_may_do_it_to_counts(store: WorkflowStore):
    add(store, "mine", dag_id="mine")
    add(store, "seen", dag_id="seen")
    add(store, "theirs", dag_id="theirs")
    rights = Rights(GET={"mine", "seen"}, PUT={"mine"}, DELETE=set())
    assert count(Chosen(), CANCEL, rights) == Selected(count=1)
    assert count(Chosen(), DELETE, rights) == Selected()
    assert do(CANCEL, rights)["done"] == 1
    assert statuses(store) == {"mine": "CANCELED", "seen": "FAILED", "theirs": "FAILED"}


def test_what_the_user_may_do_is_offered(store: WorkflowStore):
    add(store, "mine", dag_id="mine")
    add(store, "seen", SUCCESSFUL, dag_id="seen")
    rights = Rights(GET={"mine", "seen"}, PUT={"mine"}, DELETE=set())
    rows = list_page(open_hook("local"), rights, Chosen()).rows
    assert set(bulk_offers(rights, "local", rows)) == {RESUME, CANCEL}
    assert bulk_offers(Rights(GET={"mine"}), "local", rows) == {}


# ---- what is done


@pytest.mark.parametrize("created_at", [1_000.123456789, 4_000_000_000.000001])
def test_a_workflow_that_begins_after_the_confirmation_is_not_acted_on_whatever_the_servers_clock(
    store: WorkflowStore, created_at: float
):
    add(store, "counted", created_at=created_at)
    add(store, "older", created_at=1.0)
    selected = count(Chosen(), CANCEL)
    add(store, "later", created_at=created_at + 0.001)
    assert selected == Selected(count=2)
    assert do(CANCEL, before=selected.before)["done"] == selected.count
    assert statuses(store) == {"counted": "CANCELED", "older": "CANCELED", "later": "FAILED"}


def test_all_that_the_filter_selects_is_deleted_and_nothing_else(store: WorkflowStore):
    add(store, "old", dag_id="d", created_at=1.0)
    add(store, "older", dag_id="d", created_at=0.5)
    add(store, "other", dag_id="e")
    # Made after the user saw how many there are.
    add(store, "new", dag_id="d", created_at=200.0)
    assert do(DELETE, dag_id="d") == {"done": 2, "clears": [], "failures": [], "next": ""}
    assert set(statuses(store)) == {"other", "new"}


def test_batches_go_on_where_the_one_before_ended(store: WorkflowStore):
    for number in range(5):
        add(store, f"w{number}", created_at=float(number))
    first = do(CANCEL, most=2)
    assert set(name for name, status in statuses(store).items() if status == "CANCELED") == {
        "w3",
        "w4",
    }
    second = do(CANCEL, most=2, after=first["next"])
    third = do(CANCEL, most=2, after=second["next"])
    assert (first["done"], second["done"], third["done"], third["next"]) == (2, 2, 1, "")
    assert set(statuses(store).values()) == {"CANCELED"}


def test_the_task_instances_of_what_is_resumed_are_for_the_script_to_clear(store: WorkflowStore):
    add(store, "w", dag_id="d")
    answer = do(RESUME)
    assert answer["clears"] == [
        {"workflow_id": "w", "dag_id": "d", "task_id": "t", "run_id": "w", "map_index": -1}
    ]
    assert answer["done"] == 0


def test_one_failure_does_not_stop_the_others_and_is_told(store: WorkflowStore):
    for name in ("a", "b", "c"):
        add(store, name)

    def act_on(access: Any, body: Any, **_: Any) -> str:
        if body.workflow_id == "b":
            raise HTTPException(409, "It runs again.")
        if body.workflow_id == "c":
            raise RuntimeError("details are for the log")
        return ""

    answer = do(CANCEL, act_on=act_on)
    assert answer["done"] == 1
    assert sorted(answer["failures"]) == [
        ("b", "It runs again."),
        ("c", "It failed. The API server's log says why."),
    ]


def test_a_workflow_that_has_changed_meanwhile_is_a_failure_with_its_reason(store: WorkflowStore):
    add(store, "w", dag_id="d")

    def act_on(access: Any, body: Any, **options: Any) -> str:
        store.write_status(
            status_record(
                SUCCESSFUL, "w", number=1, user_metadata={"airflow": origin("d", "t", "w")}
            )
        )
        return act(access, body, **options)

    [(name, reason)] = do(CANCEL, act_on=act_on)["failures"]
    assert (name, reason) == ("w", "The workflow is SUCCESSFUL now: cancel can't be done.")


def test_a_cluster_that_is_away_is_asked_once(store: WorkflowStore):
    for name in ("a", "b", "c"):
        add(store, name)
    asked = []

    def act_on(access: Any, body: Any, **_: Any) -> str:
        asked.append(body.workflow_id)
        raise ClusterAwayError

    answer = do(RESUME, most=2, act_on=act_on)
    assert (len(asked), len(answer["failures"]), answer["next"]) == (1, 2, "")
    assert answer["failures"][1][1].startswith("Not tried. The Ray cluster does not answer.")


def test_workflows_are_acted_on_at_the_same_time_where_the_storage_gains_by_it(
    store: WorkflowStore,
):
    for number in range(8):
        add(store, f"w{number}")
    at_once = threading.Barrier(4)

    def act_on(access: Any, body: Any, *, hook: Any) -> str:
        at_once.wait(60)
        return act(access, body, hook=hook)

    assert do(CANCEL, act_on=act_on, at_once=4)["done"] == 8
    assert set(statuses(store).values()) == {"CANCELED"}
    # One for all of them, and those by which the test has made them.
    logs = [store.changes.read(writer) for writer in store.changes.writers()]
    assert sorted(len(changed.changes) for changed in logs) == [1] * 8 + [8]


def test_many_deletions_take_one_change_log(store: WorkflowStore):
    for number in range(5):
        add(store, f"w{number}")
    store.bytes.delete_folder("v1/changes")
    assert do(DELETE)["done"] == 5
    [writer] = store.changes.writers()
    assert len(store.changes.read(writer).changes) == 5


# ---- what is refused


@pytest.mark.parametrize("action", [PageAction.SUSPEND, PageAction.RUN_AGAIN])
@pytest.mark.usefixtures("store")
def test_other_actions_are_for_one_workflow_at_a_time(action: PageAction):
    with pytest.raises(HTTPException, match="one workflow at a time"):
        do(action)


@pytest.mark.usefixtures("store")
def test_a_broken_filter_or_begin_is_refused():
    with pytest.raises(HTTPException, match="since is no time"):
        do(DELETE, since="yesterday")
    with pytest.raises(HTTPException, match="begin with the first page"):
        do(DELETE, after="x")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("after", ["x", seal("of no order")], ids=["no seal", "of no order"])
@pytest.mark.parametrize("conn_id", ["local", "missing"])
def test_a_broken_begin_is_refused_alike_for_connections_that_exist_and_that_do_not(
    conn_id: str, after: str
):
    body = BulkBody(conn_id=conn_id, action=DELETE, before=1.0, most=1, after=after)
    with pytest.raises(HTTPException) as raised:
        act_on_batch(Rights(GET={"mine"}), body)
    assert raised.value.status_code == 422


def test_a_begin_of_another_connection_is_refused_to_those_who_may_see_that_and_tells_others_nothing(
    store: WorkflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add(store, "w1")
    add(store, "w2")
    after = do(CANCEL, most=1)["next"]
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(storage=str(tmp_path / "other")))
    add(WorkflowStore(open_store(str(tmp_path / "other"))), "w1")
    body = BulkBody(conn_id="other", action=CANCEL, before=100.0, most=1, after=after)
    with pytest.raises(HTTPException, match="another storage") as raised:
        act_on_batch(EVERYTHING, body)
    assert raised.value.status_code == 422
    assert act_on_batch(Rights(GET={"mine"}), body) == asdict(BatchDone())
    unknown = body.model_copy(update={"conn_id": "missing"})
    assert act_on_batch(Rights(GET={"mine"}), unknown) == asdict(BatchDone())


@pytest.mark.parametrize("most", [0, 101])
def test_a_batch_is_bounded(most: int):
    with pytest.raises(ValidationError):
        BulkBody(conn_id="local", action=DELETE, before=1.0, most=most)


@pytest.mark.usefixtures("store")
def test_a_connection_that_is_not_there_is_told_to_those_who_may_see_it_only():
    body = BulkBody(conn_id="missing", action=DELETE, before=1.0, most=1)
    with pytest.raises(HTTPException) as raised:
        act_on_batch(EVERYTHING, body)
    assert raised.value.status_code == 502
    assert act_on_batch(Rights(GET={"mine"}), body)["done"] == 0
