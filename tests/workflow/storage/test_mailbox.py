"""What the side without a cluster leaves in the storage for the side that has one."""

from dataclasses import asdict, replace

import pytest
from faulty import FaultyStore, Killed

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import dump_document
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    Mailbox,
    Owner,
    StopRequest,
    Submission,
    SubmissionAnswer,
)

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


KEY = "v1/submissions/%44ag.task/try-1.submission"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def mailbox(store: MemoryStore) -> Mailbox:
    return Mailbox(store)


@pytest.mark.parametrize("graph", [None, b"", b"\x80pickled\n"])
def test_a_submission_comes_back_as_it_was_written(mailbox: Mailbox, graph: bytes | None):
    submission = replace(SUBMISSION, graph=graph)
    mailbox.write_submission(submission)
    assert mailbox.read_submission(KEY) == submission


def test_a_submission_that_was_taken_is_not_found(mailbox: Mailbox):
    mailbox.write_submission(SUBMISSION)
    mailbox.delete_submission("Dag.task", "try-1")
    with pytest.raises(KeyNotFoundError, match="try-1"):
        mailbox.read_submission(KEY)


def test_a_torn_submission_is_no_submission(mailbox: Mailbox, store: MemoryStore):
    mailbox.write_submission(replace(SUBMISSION, graph=b"pickled"))
    key = "v1/submissions/%44ag.task/try-1.submission"
    store.put(key, store.get(key)[:-3])
    with pytest.raises(CorruptedDataError, match="cut off"):
        mailbox.read_submission(KEY)


def test_the_latest_owner_counts(mailbox: Mailbox):
    assert mailbox.read_owner("Dag.task") is None
    owner = Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0)
    mailbox.take_over(owner)
    mailbox.take_over(replace(owner, token="later"))
    assert mailbox.read_owner("Dag.task") == replace(owner, token="later")


def test_a_request_of_an_earlier_owner_is_void(mailbox: Mailbox):
    request = StopRequest(workflow_id="Dag.task", token="try", how="suspend", requested_at=1.0)
    assert not mailbox.is_valid(request, 1)  # it has no owner
    owner = Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0)
    mailbox.take_over(owner)
    assert mailbox.is_valid(request, 1)
    mailbox.take_over(replace(owner, token="later"))
    assert not mailbox.is_valid(request, 1)


def test_requests_are_listed_until_they_are_dealt_with(mailbox: Mailbox):
    request = StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    other = replace(request, workflow_id="other", how="suspend")
    mailbox.request_stop(request)
    mailbox.request_stop(other)
    mailbox.delete_request(request)
    assert list(mailbox.list_requests()) == [other]
    assert mailbox.read_request("Dag.task", "try") is None
    assert mailbox.read_request("other", "try") == other


def test_the_workflows_folder_tells_of_a_cancel(mailbox: Mailbox, store: MemoryStore):
    request = StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    mailbox.request_stop(replace(request, how="suspend", token="other"))
    assert kinds(store) == []
    mailbox.request_stop(request)
    assert kinds(store) == ["cancel"]
    mailbox.delete_request(request)
    assert kinds(store) == []


def kinds(store: MemoryStore) -> list[str]:
    return [file.kind for file in WorkflowStore(store).list_files("Dag.task")]


def test_deleting_a_workflow_deletes_what_was_handed_over(mailbox: Mailbox, store: MemoryStore):
    mailbox.write_submission(SUBMISSION)
    mailbox.take_over(Owner(workflow_id="Dag.task", token="try", submission_id="", since=1.0))
    mailbox.request_stop(
        StopRequest(workflow_id="Dag.task", token="try", how="cancel", requested_at=1.0)
    )
    WorkflowStore(store).delete("Dag.task")
    # A change log tells of it until it is taken over.
    assert [entry for entry in store.list("v1") if not entry.key.startswith(keys.CHANGES)] == []


ANSWER = SubmissionAnswer(
    workflow_id="Dag.task",
    submission_id="try-1",
    outcome="queue full",
    message="There is no place in the queue.",
    answered_at=2.5,
)


def test_a_submission_is_written_after_its_owner(mailbox: Mailbox, store: MemoryStore):
    """A manager that finds it drops it unless its try is the owner."""
    dying = FaultyStore(store, at=0, how="after")
    with pytest.raises(Killed):
        Mailbox(dying).submit(SUBMISSION)
    assert mailbox.list_submissions() == []
    owner = mailbox.read_owner("Dag.task")
    assert owner is not None
    assert (owner.token, owner.submission_id) == ("try", "try-1")
    mailbox.submit(SUBMISSION)
    (key,) = mailbox.list_submissions()
    assert mailbox.read_submission(key) == SUBMISSION


def test_a_later_try_leaves_nothing_of_what_the_one_before_has_submitted(
    mailbox: Mailbox, store: MemoryStore
):
    """That one may be dead, and its cluster gone: its arguments would stay for ever."""
    mailbox.submit(SUBMISSION)
    mailbox.write_answer(ANSWER)
    by_a_user = replace(SUBMISSION, token=ANYBODY, submission_id="user-1")
    mailbox.submit(by_a_user)
    later = replace(SUBMISSION, token="later", submission_id="try-2")
    mailbox.submit(later)
    assert [mailbox.read_submission(key) for key in mailbox.list_submissions()] == [
        later,
        by_a_user,
    ]
    assert mailbox.read_answer("Dag.task", "try-1") is None


def test_a_damaged_owner_does_not_keep_a_try_from_submitting(mailbox: Mailbox, store: MemoryStore):
    store.put(keys.owner_key("Dag.task"), b"torn")
    mailbox.submit(SUBMISSION)
    owner = mailbox.read_owner("Dag.task")
    assert owner is not None
    assert owner.token == "try"


def test_open_submissions_are_listed_without_foreign_files(mailbox: Mailbox, store: MemoryStore):
    mailbox.write_submission(replace(SUBMISSION, workflow_id="b"))
    mailbox.write_submission(replace(SUBMISSION, workflow_id="a"))
    for foreign in ("note.txt", "a/x/try.submission", "a/try.json", "a/.submission"):
        store.put(f"v1/submissions/{foreign}", b"")
    assert mailbox.list_submissions() == [
        "v1/submissions/a/try-1.submission",
        "v1/submissions/b/try-1.submission",
    ]


def test_a_submission_under_the_key_of_another_one_is_not_believed(mailbox, store):
    mailbox.write_submission(SUBMISSION)
    other = "v1/submissions/other/try-1.submission"
    store.copy("v1/submissions/%44ag.task/try-1.submission", other)
    with pytest.raises(CorruptedDataError, match="it is the submission of"):
        mailbox.read_submission(other)


def test_the_first_answer_counts(mailbox: Mailbox):
    assert mailbox.read_answer("Dag.task", "try-1") is None
    assert mailbox.write_answer(ANSWER)
    assert not mailbox.write_answer(replace(ANSWER, outcome="accepted"))
    assert mailbox.read_answer("Dag.task", "try-1") == ANSWER


def test_an_answer_goes_after_its_submission(mailbox: Mailbox, store: MemoryStore):
    """A submission without an answer would be open again."""
    mailbox.write_submission(SUBMISSION)
    mailbox.write_answer(ANSWER)
    dying = FaultyStore(store, at=0, how="after")
    with pytest.raises(Killed):
        Mailbox(dying).delete_answer("Dag.task", "try-1")
    assert mailbox.list_submissions() == []
    assert mailbox.read_answer("Dag.task", "try-1") == ANSWER
    mailbox.delete_answer("Dag.task", "try-1")
    assert list(store.list("v1")) == []


@pytest.mark.parametrize(
    "changes", [{"outcome": "maybe"}, {"workflow_id": "other"}, {"answered_at": -1.0}]
)
def test_a_strange_answer_is_damage(mailbox: Mailbox, store: MemoryStore, changes: dict):
    mailbox.write_answer(ANSWER)
    key = "v1/answers/%44ag.task/try-1.json"
    store.put(key, dump_document(key, "answer", asdict(ANSWER) | changes))
    with pytest.raises(CorruptedDataError):
        mailbox.read_answer("Dag.task", "try-1")


def test_old_answers_for_workflows_that_never_began_are_forgotten(mailbox, store):
    mailbox.write_answer(ANSWER)
    mailbox.write_answer(replace(ANSWER, submission_id="late", answered_at=99.0))
    mailbox.write_answer(replace(ANSWER, workflow_id="known"))
    store.put("v1/answers/%44ag.task/torn.json", b"torn")
    assert mailbox.forget_orphaned(lambda segment: segment != "known", before=50.0) == 1
    assert sorted(entry.key for entry in store.list("v1/answers")) == [
        "v1/answers/%44ag.task/late.json",
        "v1/answers/%44ag.task/torn.json",
        "v1/answers/known/try-1.json",
    ]
