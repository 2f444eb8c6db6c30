"""What tasks print and log is in the storage: while they run, over resumes, and when the manager is gone."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import ray
from effects import calls
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.log_pieces import BEGINNING

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    return MemoryStore() if request.param == "memory" else open_store(str(tmp_path))


@ray.remote
def say(*texts):
    for text in texts:
        print(text)
    return len(texts)


@ray.remote
def levels():
    print("printed")
    logging.getLogger("author").warning("careful")
    logging.getLogger("author").error("bad")


@ray.remote
def silent(*_):
    return 1


@ray.remote
def fail_once(*_):
    calls.append("fail")
    print(f"try {len(calls)}")
    if len(calls) == 1:
        raise OSError("not yet")
    return "well"


@ray.remote
def talk_until(name: str):
    print("begun")
    while name not in calls:
        time.sleep(0.01)
    print("ended")


def lines_of(store: ByteStore, workflow_id: str = "w") -> list[LogLine]:
    return WorkflowStore(store).logs.read(workflow_id).lines


def texts(store: ByteStore, workflow_id: str = "w") -> list[str]:
    return [line.text for line in lines_of(store, workflow_id)]


def test_lines_have_time_level_task_and_attempt(store: ByteStore):
    begun = time.time()
    with testing.in_process(store) as workflows:
        workflows.run(levels.options(**workflow.options(task_id="talk")).bind(), workflow_id="w")
        found = lines_of(store)
    assert [(line.level, line.text) for line in found] == [
        ("INFO", "printed"),
        ("WARNING", "careful"),
        ("ERROR", "bad"),
    ]
    assert {(line.task_id, line.attempt) for line in found} == {("talk", 1)}
    assert all(begun <= line.at <= time.time() for line in found)


def test_tasks_that_print_nothing_have_no_log(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(silent.bind(silent.bind()), workflow_id="w")
        assert WorkflowStore(store).logs.files("w") == []


def test_lines_are_there_while_a_task_runs(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run_async(talk_until.bind("go"), workflow_id="w")
        wait_until(lambda: texts(store) == ["begun"])
        assert workflows.get_status("w") == "RUNNING"
        calls.append("go")
        workflows.get_output("w")
        # All is written before the status is final.
        assert texts(store) == ["begun", "ended"]


def test_a_resume_goes_on_with_the_log_each_line_once(store: ByteStore):
    graph = fail_once.bind(say.bind("before"))
    with testing.in_process(store) as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(graph, workflow_id="w")
        first = WorkflowStore(store).logs.read("w")
        assert [line.text for line in first.lines][:2] == ["before", "try 1"]
        workflows.resume("w")
        second = WorkflowStore(store).logs.read("w", first.cursor)
        assert [line.text for line in second.lines] == ["try 2"]
        assert texts(store).count("before") == 1


def test_the_failure_is_the_only_error(store: ByteStore):
    with testing.in_process(store) as workflows:
        with pytest.raises(WorkflowExecutionError):
            workflows.run(fail_once.bind(), workflow_id="w")
        assert [(line.level, line.text) for line in lines_of(store)] == [
            ("INFO", "try 1"),
            ("ERROR", "The task failed (application): OSError: not yet"),
        ]


def test_a_retry_is_told(store: ByteStore):
    graph = fail_once.options(
        **workflow.options(retry=workflow.Retry(attempts=2, wait_initial=0))
    ).bind()
    with testing.in_process(store) as workflows:
        workflows.run(graph, workflow_id="w")
    found = [(line.level, line.attempt, line.text) for line in lines_of(store)]
    assert found == [
        ("INFO", 1, "try 1"),
        (
            "WARNING",
            1,
            "The attempt failed (application), and the task is tried again "
            "(retry pays, 0 of 1 left): OSError: not yet",
        ),
        ("INFO", 2, "try 2"),
    ]


def test_a_task_that_was_stopped_has_not_failed(store: ByteStore, caplog: pytest.LogCaptureFixture):
    @ray.remote
    def gather(*_):
        return 0

    @ray.remote
    def fail_late():
        wait_until(lambda: texts_begun())
        raise ValueError("the one that failed")

    def texts_begun() -> bool:
        return "begun" in calls

    @ray.remote
    def wait_long():
        calls.append("begun")
        wait_until(lambda: "end" in calls)

    caplog.set_level(logging.INFO)
    with testing.in_process(store) as workflows:
        graph = gather.bind(
            fail_late.options(**workflow.options(task_id="bad")).bind(),
            wait_long.options(**workflow.options(task_id="other")).bind(),
        )
        with pytest.raises(WorkflowExecutionError):
            workflows.run(graph, workflow_id="w")
        calls.append("end")
        told = [text for text in caplog.messages if text.startswith("Task status")]
        assert "Task status [FAILED]\t[w@bad]" in told
        assert "Task status [STOPPED]\t[w@other]" in told
        assert "Task status [FAILED]\t[w@other]" not in told


def test_what_was_written_outlives_the_manager(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run_async(talk_until.bind("go"), workflow_id="w")
        wait_until(lambda: texts(store) == ["begun"])
        workflows.crash()
    assert texts(store) == ["begun"]
    calls.append("go")
    with testing.in_process(store) as workflows:
        workflows.resume("w")
        assert texts(store) == ["begun", "begun", "ended"]
        assert {line.attempt for line in lines_of(store)} == {1}


def test_hostile_text_is_harmless(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(
            say.bind("\x1b[2J\x1b[31mred\x1b[0m", "\ud800", "a\x00b", '{"at":1}', "1%\r2%"),
            workflow_id="w",
        )
        assert texts(store) == ["red", "\\ud800", "a\\x00b", '{"at":1}', "2%"]


def test_much_is_written_in_order_and_few_pieces(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(say.bind(*range(5_000)), workflow_id="w")
        assert texts(store) == [str(number) for number in range(5_000)]
        assert len(WorkflowStore(store).logs.files("w")) <= 3


def test_events_and_their_listeners_have_a_log(store: ByteStore):
    class Listener(workflow.EventListener):
        async def poll_for_event(self):
            print("polling")
            logging.getLogger("author").warning("heard")
            return 1

        async def event_checkpointed(self, event):
            pass

    with testing.in_process(store) as workflows:
        workflows.run(workflow.wait_for_event(Listener), workflow_id="w")
        assert texts(store) == ["polling", "heard"]


def test_the_log_goes_with_the_workflow(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(say.bind("a"), workflow_id="w")
        workflows.delete("w")
        assert WorkflowStore(store).logs.files("w") == []


def test_a_restart_drops_the_log_of_before(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(say.bind("a"), workflow_id="w")
        workflows.run(say.bind("b"), workflow_id="w", on_existing="restart")
        assert texts(store) == ["b"]


def test_a_workflow_that_is_cut_down_to_its_output_keeps_no_log(store: ByteStore):
    with testing.in_process(store) as workflows:
        workflows.run(say.bind("a"), workflow_id="w")
        time.sleep(0.01)
        workflows.prune(0.001, keep_outputs=True)
        assert WorkflowStore(store).logs.files("w") == []
        assert workflows.get_output("w") == 1
        assert WorkflowStore(store).logs.read("w").cursor == BEGINNING
