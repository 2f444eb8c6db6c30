"""Texts of others are cut where they are made; their beginning, their end and the loss stay."""

import json

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.format.shortening import (
    MAX_TEXT_BYTES,
    right_end,
    shorten,
)
from airflow_provider_rayworkflow.workflow.model.records import JsonOutput, TaskFailure
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore


@pytest.mark.parametrize("text", ["", "short", "x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)])
def test_a_short_text_stays(text: str):
    assert shorten(text) == text


@pytest.mark.parametrize("char", ["x", "é", "€", "😀", "\udce9", "\n"])
def test_a_long_text_keeps_beginning_and_end_and_says_what_is_missing(char: str):
    text = "begin " + char * 1_000_000 + " end"
    cut = shorten(text)
    assert cut.startswith("begin ")
    assert cut.endswith(" end")
    assert "characters are left out]" in cut
    assert len(cut.encode(errors="surrogatepass")) < MAX_TEXT_BYTES + 200
    assert shorten(cut) == cut


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("extract_3", "extract_3"),
        ("the_package.etl.locals.extract_3", "…etl.locals.extract_3"),
        ("a_module_that_is_long.extract_3", "…dule_that_is_long.extract_3"),
        ("x" * 40 + "1", "…" + "x" * 26 + "1"),
    ],
)
def test_a_long_name_keeps_its_end_that_tells_it_from_others(name: str, shown: str):
    assert right_end(name, 28) == shown


def test_a_failure_never_has_a_long_text():
    long = "x" * 1_000_000
    made = TaskFailure(task_id="t", type=long, message=long, traceback=long)
    assert len(json.dumps(made.to_json())) < 3 * MAX_TEXT_BYTES
    body = {"task_id": "t", "type": long, "message": long, "traceback": long}
    assert TaskFailure.from_json(body | {"cause": "application", "bases": []}) == made
    assert len(JsonOutput(problem=long).problem) < 2_000


@ray.remote
def fails() -> None:
    raise ValueError("begin " + "x" * 3_000_000 + " end")


def test_an_exception_with_a_long_message_makes_no_large_documents():
    store = MemoryStore()
    with testing.in_process(store) as workflows, pytest.raises(WorkflowExecutionError):
        workflows.run(fails.bind(), workflow_id="w")
    sizes = [entry.size for entry in store.list("v1/status")]
    assert max(sizes) < 3 * MAX_TEXT_BYTES
    record = WorkflowStore(store).read_status("w")
    assert record is not None
    assert record.failure is not None
    assert record.failure.message.startswith("begin xxx")
    assert record.failure.message.endswith("xxx end")


def test_a_task_id_is_no_novel():
    with pytest.raises(ValueError, match="has 5000 characters"):
        workflow.options(task_id="x" * 5_000)
