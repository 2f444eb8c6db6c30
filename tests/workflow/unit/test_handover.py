"""What the side without a cluster leaves in the storage for the side that has one."""

from dataclasses import replace

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.handover import (
    Handover,
    Owner,
    StopRequest,
    Submission,
)
from airflow_provider_rayworkflow.workflow.storage.memory import MemoryStore

SUBMISSION = Submission(
    workflow_id="Dag.task",
    submission_id="try-1",
    token="try",
    workflow="pipelines.flights:daily",
    arguments={"day": "2013-01-01"},
    user_metadata={"owner": "me"},
    on_existing="resume",
    submitted_at=1.5,
    python="3.11",
    package_version="0.1.0",
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def handover(store: MemoryStore) -> Handover:
    return Handover(store)


@pytest.mark.parametrize("graph", [None, b"", b"\x80pickled\n"])
def test_a_submission_comes_back_as_it_was_written(handover: Handover, graph: bytes | None):
    submission = replace(SUBMISSION, graph=graph)
    handover.write_submission(submission)
    assert handover.read_submission("Dag.task", "try-1") == submission


def test_a_submission_that_was_taken_is_not_found(handover: Handover):
    handover.write_submission(SUBMISSION)
    handover.delete_submission("Dag.task", "try-1")
    with pytest.raises(KeyNotFoundError, match="try-1"):
        handover.read_submission("Dag.task", "try-1")


def test_a_torn_submission_is_no_submission(handover: Handover, store: MemoryStore):
    handover.write_submission(replace(SUBMISSION, graph=b"pickled"))
    key = "v1/submissions/%44ag.task/try-1.submission"
    store.put(key, store.get(key)[:-3])
    with pytest.raises(CorruptedDataError, match="cut off"):
        handover.read_submission("Dag.task", "try-1")


def test_the_latest_owner_counts(handover: Handover):
    assert handover.read_owner("Dag.task") is None
    owner = Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0)
    handover.take_over(owner)
    handover.take_over(replace(owner, token="later"))
    assert handover.read_owner("Dag.task") == replace(owner, token="later")


def test_a_request_of_an_earlier_owner_is_void(handover: Handover):
    request = StopRequest(workflow_id="Dag.task", token="try", how="suspend", requested_at=1.0)
    assert not handover.is_valid(request, 1)  # nobody owns it
    owner = Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0)
    handover.take_over(owner)
    assert handover.is_valid(request, 1)
    handover.take_over(replace(owner, token="later"))
    assert not handover.is_valid(request, 1)


def test_requests_are_listed_until_they_are_dealt_with(handover: Handover):
    request = StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    other = replace(request, workflow_id="other", how="suspend")
    handover.request_stop(request)
    handover.request_stop(other)
    handover.delete_request(request)
    assert list(handover.list_requests()) == [other]
    assert handover.read_request("Dag.task", "try") is None
    assert handover.read_request("other", "try") == other


def test_of_a_cancel_there_is_word_in_the_workflows_folder(handover: Handover, store: MemoryStore):
    request = StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    handover.request_stop(replace(request, how="suspend", token="other"))
    assert kinds(store) == []
    handover.request_stop(request)
    assert kinds(store) == ["cancel"]
    handover.delete_request(request)
    assert kinds(store) == []


def kinds(store: MemoryStore) -> list[str]:
    return [file.kind for file in WorkflowStore(store).list_files("Dag.task")]


def test_deleting_a_workflow_deletes_what_was_handed_over(handover: Handover, store: MemoryStore):
    handover.write_submission(SUBMISSION)
    handover.take_over(Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0))
    handover.request_stop(
        StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    )
    WorkflowStore(store).delete("Dag.task")
    assert list(store.list("v1")) == []
