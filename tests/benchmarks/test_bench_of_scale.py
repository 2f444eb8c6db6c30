"""That the benchmark of large storages can be measured, and that its storages are as managers leave them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.tries.identity import Origin
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter, read_page
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from benchmarks.costs import Cost, CountingStore, Meter, in_turns
from benchmarks.stored_workflows import (
    SPAN_S,
    generate,
    holding,
    renew,
    run_earlier,
    run_stored,
    stored_record,
)
from benchmarks.works import scale

ROOT = Path(__file__).parent.parent.parent
NOW = 1_800_000_000.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run_gives_all_rows():
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "scale"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 17
    assert [line.partition(",")[0] for line in lines[:4]] == [
        "round of the poll: 200 stored",
        "round of the poll: 200 stored",
        "newest page: 200 stored",
        "newest page: 200 stored",
    ]
    # Counted, so it is the same on every machine.
    assert lines[0].split()[-6:] == ["3.0", "3", "requests", "1.0", "≥", "1"]
    assert float(lines[2].split()[-6]) <= 12


def test_nearly_all_generated_workflows_are_successful_and_none_can_be_resumed():
    statuses = Counter(stored_record(one, 10_000, now=NOW).status for one in range(10_000))
    assert statuses["SUCCESSFUL"] == pytest.approx(9_700, abs=100)
    assert statuses["FAILED"] == pytest.approx(200, abs=60)
    assert statuses["CANCELED"] == pytest.approx(100, abs=40)
    assert statuses.total() == 10_000
    assert set(statuses) == {"SUCCESSFUL", "FAILED", "CANCELED"}


def test_generated_workflows_are_of_task_instances_and_no_two_have_the_same_id():
    records = [stored_record(one, 1_000, now=NOW) for one in range(1_000)]
    origins = [Origin.from_metadata(record.user_metadata) for record in records]
    assert len({record.workflow_id for record in records}) == 1_000
    assert len({origin.key.dag_id for origin in origins if origin}) == 300


def test_lists_find_in_a_generated_storage_what_its_status_documents_say(tmp_path: Path):
    generate(str(tmp_path), 200, now=NOW)
    store = WorkflowStore(LocalStore(tmp_path))
    page = read_page(Overview(store), ListFilter(), size=1_000)
    listed = {row.workflow_id: row.status for row in page.rows}
    assert listed == {found[0]: found[1] for found in StatusReader(store).list_workflows()}
    assert {
        listed.row for listed in page.rows if store.read_row(listed.row.segment) != listed.row
    } == set()


def test_generated_documents_have_the_fields_that_a_manager_writes(tmp_path: Path):
    generate(str(tmp_path / "generated"), 1, now=NOW)
    run_earlier(str(tmp_path / "ran"), 1, now=NOW)
    generated, ran = (
        [json.loads(path.read_text()) for path in (tmp_path / kind).glob("v1/status/*/*.json")]
        for kind in ("generated", "ran")
    )
    assert [body["body"].keys() for body in generated] == [body["body"].keys() for body in ran]
    assert generated[0]["body"]["user_metadata"].keys() == ran[0]["body"]["user_metadata"].keys()


def test_workflows_that_really_ran_are_those_that_would_be_generated(tmp_path: Path):
    generate(str(tmp_path / "generated"), 100, now=NOW)
    run_stored(str(tmp_path / "ran"), 100, now=NOW)
    generated, ran = (
        {found[0]: found[1] for found in StatusReader(store).list_workflows()}
        for store in (WorkflowStore(LocalStore(tmp_path / kind)) for kind in ("generated", "ran"))
    )
    assert set(ran.values()) == {"SUCCESSFUL", "FAILED", "CANCELED"}
    assert ran == generated


def test_workflows_that_really_ran_are_of_three_years(tmp_path: Path):
    run_stored(str(tmp_path), 3, now=NOW)
    store = WorkflowStore(LocalStore(tmp_path))
    ended = [one.row.last_at for one in read_page(Overview(store), ListFilter(), size=3).rows]
    assert all(NOW - SPAN_S <= at <= NOW for at in ended)


def test_a_storage_is_filled_up_after_measurements(tmp_path: Path):
    generate(str(tmp_path), 5, now=NOW)
    run_earlier(str(tmp_path), 2, now=NOW)
    store = WorkflowStore(LocalStore(tmp_path))
    filled = list_ids(store)
    with holding(str(tmp_path), watched=2, resumable=1) as held:
        assert {*held["running"], *held["resumable"]} < list_ids(store)
    prune(store, older_than_s=SPAN_S + 86_400.0, now=NOW)
    assert len(list_ids(store) & filled) == 5
    renew(str(tmp_path), 2)
    assert len(list_ids(store)) == 7
    assert len(list_ids(store) & filled) == 5


def list_ids(store: WorkflowStore) -> set[str]:
    return {row.workflow_id for row in read_page(Overview(store), ListFilter(), size=1_000).rows}


def test_workflows_that_ran_are_older_than_all_that_are_generated(tmp_path: Path):
    generate(str(tmp_path), 5, now=NOW)
    run_earlier(str(tmp_path), 2, now=NOW)
    store = WorkflowStore(LocalStore(tmp_path))
    rows = read_page(Overview(store), ListFilter(), size=10, descending=False).rows
    assert [listed.row.dag_id for listed in rows[:3]] == ["dag_earlier", "dag_earlier", "dag_000"]
    assert {listed.status for listed in rows[:2]} == {WorkflowStatus.SUCCESSFUL}


def test_files_count_the_requests_that_an_object_store_would_get(tmp_path: Path):
    calls: Counter[str] = Counter()
    store = CountingStore(str(tmp_path), calls)
    folder = tmp_path / "v1/status/w"
    folder.mkdir(parents=True)
    for number in range(1_001):
        (folder / f"{number}.json").write_bytes(b"{}")
    assert len([*store.list("v1/status")]) == 1_001
    assert [*store.list("v1/missing")] == []
    store.get("v1/status/w/1.json")
    store.delete(["v1/status/w/1.json", "v1/status/w/2.json"])
    assert calls == {"list": 3, "get": 1, "delete": 1}
    store.delete_folder("v1/status")
    assert calls == {"list": 4, "get": 1, "delete": 2}


def test_a_cost_is_the_median_of_its_calls_and_the_first_one_warms_up():
    used = [100, 1, 5, 2]
    total = 0

    def do() -> None:
        nonlocal total
        total += used.pop(0)

    meter = Meter(requests=lambda: total, cpu_s=lambda: total / 1000)
    cost = in_turns({"call": lambda: meter.cost(do)}, rounds=3)["call"]
    assert (cost.requests, cost.cpu_ms) == (2, pytest.approx(2.0))
    assert used == []


def test_calls_take_turns():
    called = []
    cost = Cost(requests=1, cpu_ms=1.0, wall_ms=1.0)

    def call(name: str) -> Cost:
        called.append(name)
        return cost

    in_turns({"a": lambda: call("a"), "b": lambda: call("b")}, rounds=2)
    assert "".join(called) == "ababab"


def test_the_rows_tell_what_has_grown_most():
    same = Cost(requests=2, cpu_ms=10.0, wall_ms=20.0)
    more = Cost(requests=3, cpu_ms=11.0, wall_ms=22.0)
    costs: scale.Costs = {
        what: {1_000: same, 5_000: more if what == scale.PAGE else same}
        for what in (scale.POLL, scale.PAGE, scale.SLOW_POLL, scale.SLOW_PAGE)
    }
    rows = scale.rows_of("files", costs)
    assert [(row.work, row.peer, row.ours, row.theirs, row.unit) for row in rows[-2:]] == [
        ("round of the poll: 5,000 stored, files", "1,000 stored", 2, 2, "requests"),
        ("newest page: 5,000 stored, files", "1,000 stored", 3, 2, "requests"),
    ]
    assert scale.table({"files": costs}).splitlines()[:4] == [
        "| files | 1,000 stored | 5,000 stored | largest / smallest |",
        "| --- | --- | --- | --- |",
        "| round of the poll | 2; 10.0; 20.0 | 2; 10.0; 20.0 | 1.00 1.00 1.00 |",
        "| newest page | 2; 10.0; 20.0 | 3; 11.0; 22.0 | 1.50 1.10 1.10 |",
    ]
