"""The command line: what it prints, what it needs, and what it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sample_records import lease, status_record, store_run

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTask, FailedTasks
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Form,
    JsonOutput,
    Result,
    ReuseCounts,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, shown
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter

FAILURE = TaskFailure(
    task_id="fit", type="ValueError", message="no flights", traceback="Traceback …\nValueError"
)
GRAPH = Graph(
    tasks=[
        Task(name="load", function=0, arguments=0, shown_options={"num_cpus": 2}),
        Task(
            name="clean",
            function=0,
            arguments=0,
            upstream=(0,),
            options=TaskOptions(checkpoint=False, catch_exceptions=True),
        ),
        Task(
            name="fit",
            function=0,
            arguments=0,
            upstream=(0, 1),
            options=TaskOptions(metadata={"model": "linear"}),
        ),
    ],
    blobs=[b"not a pickle: no process may load it"],
)


class Root:
    """Writes workflows as a manager would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = WorkflowStore(LocalStore(path))

    def add(
        self, workflow_id: str, status: str, *, manager_id: str = "m1", **changes: Any
    ) -> JournalWriter:
        record = status_record(
            WorkflowStatus(status),
            workflow_id,
            manager_id=manager_id,
            created_at=1_000.0,
            **changes,
        )
        store_run(self.store, record, GRAPH)
        return JournalWriter(self.store.bytes, workflow_id, 1)

    def add_lease(self, manager_id: str) -> None:
        self.store.leases.write(lease(manager_id))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    path = tmp_path / "storage"
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", str(path))
    return Root(path)


def committed(task_id: str, value: Any, *, form: Form = Form.VALUE) -> TaskRecord:
    return TaskRecord(
        task_id=task_id,
        times=TaskTimes(started_at=10.0, ended_at=11.5, attempt=1),
        result=Result(form=form, encoding=Encoding.JSON, inline=json.dumps(value).encode()),
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


# ---- list


def test_list_shows_the_honest_status_of_every_workflow(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add_lease("alive")
    root.add("going", "RUNNING", manager_id="alive")
    root.add("orphan", "RUNNING", manager_id="dead")
    root.add("done", "SUCCESSFUL")
    assert printed(capsys, "list") == (
        "WORKFLOW  STATUS      EPOCH\n"
        "done      SUCCESSFUL  1\n"
        "going     RUNNING     1\n"
        "orphan    RESUMABLE   1\n"
    )


def test_list_filters_by_several_statuses(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("a", "FAILED", failure=FAILURE)
    root.add("b", "SUCCESSFUL")
    root.add("c", "CANCELED")
    assert printed_json(capsys, "list", "--status", "failed", "CANCELED") == [
        {"workflow_id": "a", "status": "FAILED", "epoch": 1},
        {"workflow_id": "c", "status": "CANCELED", "epoch": 1},
    ]


def test_list_of_an_empty_storage_names_it(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "list") == f"No workflows in {root.path}.\n"
    assert printed_json(capsys, "list") == []


def test_the_storage_option_goes_before_the_environment(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Root(tmp_path / "other").add("elsewhere", "SUCCESSFUL")
    assert "elsewhere" in printed(capsys, "list", "--storage", str(tmp_path / "other"))
    assert "elsewhere" not in printed(capsys, "list")


# ---- status


def test_status_of_a_failed_workflow_shows_the_task_and_its_traceback(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add(
        "w",
        "FAILED",
        started_at=1_001.0,
        ended_at=1_002.0,
        tasks_total=3,
        tasks_done=2,
        tasks_reused=1,
        reuse=ReuseCounts(reused=1, changed=1, unfinished=1),
        failure=FAILURE,
        failed_attempts={"crashed": 2, "application": 1},
        user_metadata={"day": "2013-01-01"},
    )
    assert printed(capsys, "status", "w") == (
        "workflow         w\n"
        "status           FAILED\n"
        "created          1970-01-01 00:16:40 UTC\n"
        "started          1970-01-01 00:16:41 UTC\n"
        "ended            1970-01-01 00:16:42 UTC\n"
        "epoch            1\n"
        "tasks            3, of which 2 are done (1 reused from earlier runs)\n"
        "went on          1 task reused, 1 changed, 0 new, 0 dropped, 1 not finished before\n"
        "failed attempts  1 application, 2 crashed\n"
        'metadata         {"day": "2013-01-01"}\n'
        "failed task      fit\n"
        "cause            application\n"
        "error            ValueError: no flights\n"
        "\n"
        "Traceback …\n"
        "ValueError\n"
    )


def test_status_of_a_workflow_with_several_failures_has_a_table_of_them(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [
        FailedTask(task_id="fit", attempt=2, error="ValueError: no flights\nat all"),
        FailedTask(task_id="load", attempt=1, error="OSError: \x1b[2J", cause=Cause.SYSTEM),
    ]
    failures = FailedTasks(total=60, first=tuple(failed))
    root.add("w", "FAILED", failure=FAILURE, failed_tasks=failures)
    assert (
        "failures     60\n"
        "\n"
        "FAILED TASK  ATTEMPT  CAUSE        ERROR\n"
        "fit          2        application  ValueError: no flights\n"
        "load         1        system       OSError: \\x1b[2J\n"
        "and 58 more\n"
        "\n"
        "Traceback"
    ) in printed(capsys, "status", "w")
    assert printed_json(capsys, "status", "w")["failed_tasks"]["total"] == 60


def test_status_is_resumable_when_the_manager_is_gone(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "RUNNING", manager_id="dead", started_at=1_001.0)
    assert printed_json(capsys, "status", "w") == {
        "workflow_id": "w",
        "status": "RESUMABLE",
        "user_metadata": {},
        "stats": {"start_time": 1001.0},
        "epoch": 1,
        "created_at": 1000.0,
    }


def test_status_of_a_task_is_its_metadata(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("w", "SUCCESSFUL").commit([committed("fit", 1)])
    found = printed_json(capsys, "status", "w", "--task", "fit")
    assert found["user_metadata"] == {"model": "linear"}
    assert found["workflow_refs"] == ["load", "clean"]
    assert found["stats"] == {"start_time": 10.0, "end_time": 11.5}
    assert "takes     load, clean\n" in printed(capsys, "status", "w", "--task", "fit")


def test_an_unknown_workflow_is_one_line_on_stderr(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "graph", "output"):
        assert refused(capsys, command, "nowhere") == (
            f"rayworkflow: There is no workflow 'nowhere' in {root.path}.\n"
        )


def test_an_unknown_task_is_named(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("w", "SUCCESSFUL")
    message = refused(capsys, "status", "w", "--task", "nothing")
    assert message == "rayworkflow: No such task_id 'nothing' in workflow 'w'\n"


def test_a_damaged_status_is_reported_by_its_key(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "SUCCESSFUL")
    (document,) = (root.path / "v1/status/w").iterdir()
    document.write_bytes(document.read_bytes()[:-20])
    assert f"'v1/status/w/{document.name}' is corrupted" in refused(capsys, "status", "w")


# ---- graph


def test_graph_shows_what_is_committed(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("w", "FAILED", failure=FAILURE).commit([committed("load", 1)])
    assert printed(capsys, "graph", "w") == (
        "w FAILED: 1 of 3 tasks committed\n"
        "\n"
        "TASK   CHECKPOINT  SECONDS  TAKES        OPTIONS\n"
        "load   committed   1.50     -            num_cpus=2\n"
        "clean  -           -        load         catch_exceptions=True, checkpoint=False\n"
        "fit    failed      -        load, clean  -\n"
    )


def test_graph_names_what_is_damaged(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    blob = root.store.values.write("w", epoch=1, task_id="load", attempt=1, parts=[b"x" * 50_000])
    large = TaskRecord(task_id="load", result=Result(encoding=Encoding.PICKLE, blob=blob))
    root.add("w", "FAILED", failure=FAILURE).commit([large, committed("clean", 1)])
    root.store.bytes.put(blob.key, b"too short")
    assert main(["graph", "w"]) == 1
    said = capsys.readouterr()
    assert "1 of 3 tasks committed" in said.out
    assert "load   damaged " in said.out
    assert said.err == (
        f"rayworkflow: The stored object {blob.key!r} is corrupted: it has 9 bytes, not "
        f"{blob.size}. A resume runs its task again.\n"
    )


def test_graph_has_the_tasks_of_continuations(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    more = Graph(tasks=[Task(name="load", function=0, arguments=0)], blobs=GRAPH.blobs)
    record = TaskRecord(task_id="fit", graph=more.to_bytes(), task_ids=("load_1",))
    root.add("w", "SUCCESSFUL").commit([record, committed("load_1", 7)])
    tasks = printed_json(capsys, "graph", "w")["tasks"]
    assert [(task["task_id"], task["checkpoint"]) for task in tasks] == [
        ("load", None),
        ("clean", None),
        ("fit", "continued"),
        ("load_1", "committed"),
    ]
    assert tasks[2]["continuation"] == ["load_1"]
    assert printed(capsys, "output", "w", "--task", "fit") == "7\n"


# ---- output


def test_output_prints_text_as_it_is_and_json_on_request(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "SUCCESSFUL", output=JsonOutput(value="late"))
    assert printed(capsys, "output", "w") == "late\n"
    assert printed(capsys, "output", "w", "--json") == '"late"\n'


def test_output_that_is_too_large_for_the_status_comes_from_its_checkpoint(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = root.add("w", "SUCCESSFUL", output=JsonOutput(problem="too large"))
    blob = root.store.values.write("w", epoch=1, task_id="fit", attempt=1, parts=[b"[1, 2]"])
    journal.commit(
        [TaskRecord(task_id="fit", result=Result(encoding=Encoding.JSON, blob=blob))],
    )
    assert printed_json(capsys, "output", "w") == [1, 2]


def test_output_of_a_task_that_catches_exceptions_is_a_pair(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "SUCCESSFUL").commit([committed("clean", 3, form=Form.CAUGHT_VALUE)])
    assert printed_json(capsys, "output", "w", "--task", "clean") == [3, None]


def test_pickled_output_is_not_loaded_but_the_python_for_it_is_shown(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = root.add("w", "SUCCESSFUL", output=JsonOutput(problem="it is a table"))
    journal.commit([TaskRecord(task_id="fit", result=Result(inline=b"no pickle"))])
    assert refused(capsys, "output", "w").endswith(
        f"In Python: workflow.init(storage={str(root.path)!r}); workflow.get_output('w')\n"
    )
    assert "workflow.get_output('w', task_id='fit')" in refused(
        capsys, "output", "w", "--task", "fit"
    )


def test_output_of_a_workflow_without_one_says_why(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("failed", "FAILED", failure=FAILURE)
    root.add("orphan", "RUNNING", manager_id="dead")
    assert "is FAILED: task 'fit' failed with ValueError." in refused(capsys, "output", "failed")
    assert "is RESUMABLE and has no output" in refused(capsys, "output", "orphan")
    assert "has no checkpoint" in refused(capsys, "output", "orphan", "--task", "load")


def test_a_damaged_checkpoint_is_reported_by_its_key(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "SUCCESSFUL").commit([committed("fit", "a value")])
    journal = root.path / "v1/workflows/w/00000001-00000000.journal"
    journal.write_bytes(journal.read_bytes().replace(b"a value", b"another"))
    assert "'v1/workflows/w/00000001-00000000.journal' is corrupted" in refused(
        capsys, "output", "w", "--task", "fit"
    )


# ---- usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["what"],
        ["status"],
        ["status", "../x"],
        ["status", ""],
        ["list", "--status", "HAPPY"],
        ["list", "--status", "NONE"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as found:
        main(arguments)
    assert found.value.code == 2
    assert "usage: rayworkflow" in capsys.readouterr().err


def test_a_storage_that_is_no_storage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'relative/path'" in refused(capsys, "list", "--storage", "relative/path")


@pytest.mark.parametrize("command", ["resume", "suspend", "cancel", "delete"])
def test_acting_starts_no_cluster_of_its_own(
    root: Root, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("w", "FAILED", failure=FAILURE)
    assert "would start a Ray cluster" in refused(capsys, command, "w", "--address", "local")


def test_reading_imports_no_ray_and_unpickles_nothing(root: Root) -> None:
    root.add("w", "SUCCESSFUL", output=JsonOutput(value=1)).commit([committed("fit", 1)])
    program = """
import pickle, sys
def refuse(*args, **kwargs):
    raise AssertionError("something was unpickled")
pickle.load = pickle.loads = pickle.Unpickler = refuse
from airflow_provider_rayworkflow.workflow.cli import main
for call in (["list"], ["status", "w"], ["graph", "w"], ["output", "w", "--task", "fit"]):
    assert main(call) == 0
loaded = {"ray", "pyarrow", "airflow"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_reader_that_stops_early_is_no_error(root: Root) -> None:
    root.add("w", "SUCCESSFUL")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "airflow_provider_rayworkflow.workflow.cli", "list"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_caught_exception_is_not_loaded_either(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result(form=Form.CAUGHT_ERROR, inline=b"no pickle")
    root.add("w", "SUCCESSFUL").commit([TaskRecord(task_id="clean", result=result)])
    assert "The output is a caught exception and pickled" in refused(
        capsys, "output", "w", "--task", "clean"
    )


def test_credentials_of_a_storage_are_not_printed() -> None:
    assert shown("s3://key:secret/with@slash@bucket/prefix") == "s3://***@bucket/prefix"
    assert shown("s3://b/p?region=x&secret_key=abc&y=1") == "s3://b/p?region=x&secret_key=***&y=1"
    assert shown("abfs://account@container/prefix") == "abfs://account@container/prefix"
    assert shown("pyarrow-filesystem:c2VjcmV0") == "a file system that was given as an object"


def test_event_token_prints_what_posters_need(root, capsys, monkeypatch):
    monkeypatch.delenv("RAY_WORKFLOW_EVENT_TOKEN", raising=False)
    tokens = set()
    for _ in range(2):
        assert main(["event-token", "--storage", str(root.path)]) == 0
        tokens.add(capsys.readouterr().out.strip())
    assert tokens == {EventStore(LocalStore(root.path)).token()}
    monkeypatch.setenv("RAY_WORKFLOW_EVENT_TOKEN", "given")
    assert main(["event-token", "--storage", str(root.path)]) == 0
    assert capsys.readouterr().out == "given\n"
